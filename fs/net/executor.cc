#include "fs/net/executor.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>

#include "fs/base/check.h"
#include "fs/net/executor_impl.h"

namespace gradfs {
namespace asio = boost::asio;
namespace {

constexpr auto kUseTuple = asio::as_tuple(asio::use_awaitable);

class ExecutorClock final : public Clock {
 public:
  ExecutorClock(Executor& executor, Executor::Impl& impl) : executor_(executor), impl_(impl) {}

  std::int64_t wall_ns() override {
    return impl_.time == Executor::Time::kReal ? real_wall_ns() : impl_.virtual_now_ns;
  }
  std::int64_t now_ns() override {
    return impl_.time == Executor::Time::kReal ? real_now_ns() : impl_.virtual_now_ns;
  }
  Task<> sleep_ns(std::int64_t duration_ns) override {
    Waiter waiter(executor_);
    co_await waiter.wait(duration_ns < 0 ? 0 : duration_ns);
  }

 private:
  Executor& executor_;
  Executor::Impl& impl_;
};

// Forgets the descriptor before the handler goes, which may own it.
void watch(Executor::Impl& impl, Executor::Impl::Watched::iterator place, std::function<bool()> handler) {
  place->async_wait(
      asio::posix::stream_descriptor::wait_read,
      [&impl, place, handler = std::move(handler)](const boost::system::error_code& ec) mutable {
        if (ec) return;
        if (handler()) return watch(impl, place, std::move(handler));
        place->release();
        impl.watched.erase(place);
      });
}

}  // namespace

Executor::Impl::Impl(Time mode) : time(mode), context(1), guard(asio::make_work_guard(context)) {}

Executor::Executor(Time time) : impl_(std::make_unique<Impl>(time)) {
  impl_->clock = std::make_unique<ExecutorClock>(*this, *impl_);
}

Executor::~Executor() {
  for (auto& descriptor : impl_->watched) descriptor.release();
}

void Executor::run() { impl_->context.run(); }

std::size_t Executor::poll() {
  impl_->context.restart();
  return impl_->context.poll();
}

void Executor::stop() { impl_->context.stop(); }

void Executor::post(std::function<void()> work) { asio::post(impl_->context, std::move(work)); }

Clock& Executor::clock() { return *impl_->clock; }

bool Executor::advance() {
  GRADFS_CHECK(impl_->time == Time::kSimulated);
  if (impl_->virtual_timers.empty()) return false;
  const auto first = impl_->virtual_timers.begin();
  impl_->virtual_now_ns = std::max(impl_->virtual_now_ns, first->first);
  first->second->cancel();
  impl_->virtual_timers.erase(first);
  return true;
}

void Executor::on_termination(std::function<void()> handler) {
  impl_->signals = std::make_unique<asio::signal_set>(impl_->context, SIGTERM, SIGINT);
  impl_->signals->async_wait([handler = std::move(handler)](const boost::system::error_code& ec, int) {
    if (!ec) handler();
  });
}

void Executor::on_readable(int fd, std::function<bool()> handler) {
  const auto place = impl_->watched.emplace(impl_->watched.end(), impl_->context, fd);
  watch(*impl_, place, std::move(handler));
}

struct Waiter::Impl {
  explicit Impl(Executor::Impl& executor_impl) : executor(executor_impl), timer(executor_impl.context) {}
  Executor::Impl& executor;
  asio::steady_timer timer;
  bool woken = false;

  // Takes the timer out of virtual time, where it still is there.
  void leave_virtual_time() {
    auto& timers = executor.virtual_timers;
    const auto [first, last] = timers.equal_range(virtual_deadline_ns);
    for (auto place = first; place != last; ++place) {
      if (place->second == &timer) {
        timers.erase(place);
        return;
      }
    }
  }
  std::int64_t virtual_deadline_ns = -1;
};

Waiter::Waiter(Executor& executor) : impl_(std::make_unique<Impl>(executor.impl())) {}

Waiter::~Waiter() {
  if (impl_->virtual_deadline_ns >= 0) impl_->leave_virtual_time();
}

Task<bool> Waiter::wait(std::int64_t timeout_ns) {
  if (impl_->woken) co_return true;
  const bool real = impl_->executor.time == Executor::Time::kReal;
  if (timeout_ns >= 0 && real) {
    impl_->timer.expires_after(std::chrono::nanoseconds(timeout_ns));
  } else {
    impl_->timer.expires_at(asio::steady_timer::time_point::max());
    if (timeout_ns >= 0) {
      impl_->virtual_deadline_ns = impl_->executor.virtual_now_ns + timeout_ns;
      impl_->executor.virtual_timers.emplace(impl_->virtual_deadline_ns, &impl_->timer);
    }
  }
  co_await impl_->timer.async_wait(kUseTuple);
  if (impl_->virtual_deadline_ns >= 0) impl_->leave_virtual_time();
  co_return impl_->woken;
}

void Waiter::wake() {
  impl_->woken = true;
  impl_->timer.cancel();
}

}  // namespace gradfs
