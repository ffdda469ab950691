#include "fs/net/sim.h"

#include <algorithm>
#include <array>
#include <deque>
#include <limits>
#include <map>
#include <set>

#include "fs/base/check.h"
#include "fs/net/sync.h"

namespace gradfs {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
constexpr int kFirstFreePort = 40'000;

std::pair<std::string, std::string> ordered(const std::string& a, const std::string& b) {
  return a < b ? std::pair(a, b) : std::pair(b, a);
}

}  // namespace

std::int64_t draw_between(Random& random, std::int64_t low, std::int64_t high) {
  GRADFS_CHECK(low <= high);
  const auto range = static_cast<std::uint64_t>(high - low) + 1;
  return low + static_cast<std::int64_t>(random.next_u64() % range);
}

bool draw_chance(Random& random, double probability) {
  constexpr double kScale = 1.0 / 9007199254740992.0;  // 2^-53
  return static_cast<double>(random.next_u64() >> 11) * kScale < probability;
}

struct SimNetwork::Impl : std::enable_shared_from_this<SimNetwork::Impl> {
  // What one end receives.
  struct Inbox {
    explicit Inbox(Executor& executor) : changed(executor) {}
    struct Arrival {
      std::int64_t time_ns;
      Frame frame;
    };
    std::deque<Arrival> arrivals;   // in order of time
    std::int64_t ends_ns = kNever;  // from then on, after the arrivals, reads and writes of this end fail
    Notify changed;
  };

  // A connection: hosts and inboxes of its two ends.
  struct Wire {
    Wire(Executor& executor, std::string a, std::string b, bool local)
        : hosts{std::move(a), std::move(b)}, inboxes{Inbox(executor), Inbox(executor)}, is_local(local) {}
    std::array<std::string, 2> hosts;
    std::array<Inbox, 2> inboxes;
    const bool is_local;  // by "/path"
    std::uint64_t number = 0;
  };

  class End;
  class SimListener;
  class Host;

  Impl(Executor& e, std::uint64_t seed, SimOptions o) : executor(e), random(seed), options(o) {}

  std::int64_t now_ns() { return executor.clock().now_ns(); }
  std::int64_t delay_ns() { return draw_between(random, options.delay_min_ns, options.delay_max_ns); }
  std::int64_t notice_ns() { return draw_between(random, options.notice_min_ns, options.notice_max_ns); }
  bool is_cut(const std::string& a, const std::string& b) const { return cuts.contains(ordered(a, b)); }

  void note(const std::string& event) {
    if (options.trace) trace.push_back(std::to_string(now_ns()) + " " + event);
  }

  static void end_inbox(Inbox& inbox, std::int64_t time_ns) {
    inbox.ends_ns = std::min(inbox.ends_ns, time_ns);
    inbox.changed.notify_all();
  }

  // Of what is on its way to this end, a part arrives (none of it where all_lost).
  void break_inbox(Inbox& inbox, bool all_lost) {
    const auto first = std::find_if(inbox.arrivals.begin(), inbox.arrivals.end(),
                                    [now = now_ns()](const auto& arrival) { return arrival.time_ns > now; });
    const auto on_its_way = inbox.arrivals.end() - first;
    const auto kept = all_lost ? 0 : draw_between(random, 0, on_its_way);
    inbox.arrivals.erase(first + kept, inbox.arrivals.end());
    end_inbox(inbox, now_ns() + notice_ns());
  }

  void break_wire(Wire& wire, bool all_lost, const char* why) {
    note("wire " + std::to_string(wire.number) + " breaks: " + why);
    for (Inbox& inbox : wire.inboxes) break_inbox(inbox, all_lost);
  }

  // The wires that still have an end in use.
  std::vector<std::shared_ptr<Wire>> living_wires() {
    std::erase_if(wires, [](const auto& wire) { return wire.expired(); });
    std::vector<std::shared_ptr<Wire>> living;
    for (const auto& wire : wires) living.push_back(wire.lock());
    return living;
  }

  Executor& executor;
  SeededRandom random;
  SimOptions options;
  std::map<std::string, std::unique_ptr<Host>> hosts;
  std::map<std::string, SimListener*> listeners;  // by address; "/path" after the host's name
  std::set<std::pair<std::string, std::string>> cuts;
  std::vector<std::weak_ptr<Wire>> wires;
  std::vector<std::string> trace;
  std::uint64_t next_wire = 1;
  int next_port = kFirstFreePort;
};

class SimNetwork::Impl::End final : public Connection {
 public:
  End(std::shared_ptr<Impl> impl, std::shared_ptr<Wire> wire, std::size_t side)
      : impl_(std::move(impl)), wire_(std::move(wire)), side_(side) {}
  ~End() override { close(); }

  Task<Result<Frame>> read() override {
    Inbox& inbox = wire_->inboxes[side_];
    for (;;) {
      const std::int64_t now = impl_->now_ns();
      if (closed_) co_return Error(Errc::kUnavailable, "connection closed");
      if (!inbox.arrivals.empty() && inbox.arrivals.front().time_ns <= now) {
        Frame frame = std::move(inbox.arrivals.front().frame);
        inbox.arrivals.pop_front();
        note("takes", frame.header);
        co_return frame;
      }
      if (inbox.arrivals.empty() && inbox.ends_ns <= now)
        co_return Error(Errc::kUnavailable, "connection lost");
      const std::int64_t next = inbox.arrivals.empty() ? inbox.ends_ns : inbox.arrivals.front().time_ns;
      co_await inbox.changed.wait(next == kNever ? -1 : next - now);
    }
  }

  Task<Result<void>> write(Frame frame) override {
    if (!frame.descriptors.empty() && wire_->hosts[0] != wire_->hosts[1]) {
      co_return Error(Errc::kNotSupported, "descriptors between hosts");
    }
    if (frame.descriptors.size() > kMaxDescriptors) co_return Error(Errc::kInvalid, "too many descriptors");
    if (frame.message.size() > kMaxMessageBytes) co_return Error(Errc::kTooBig, "message");
    frame.header.descriptors = static_cast<std::uint8_t>(frame.descriptors.size());
    frame.header.message_length = static_cast<std::uint32_t>(frame.message.size());
    const Inbox& own = wire_->inboxes[side_];
    if (closed_ || own.ends_ns <= impl_->now_ns()) co_return Error(Errc::kUnavailable, "connection lost");
    note("sends", frame.header);
    Inbox& other = wire_->inboxes[1 - side_];
    if (own.ends_ns != kNever || other.ends_ns != kNever) co_return ok();  // broken, and not yet noticed
    const std::int64_t earliest = other.arrivals.empty() ? 0 : other.arrivals.back().time_ns;
    const std::int64_t time_ns = std::max(earliest, impl_->now_ns() + impl_->delay_ns());
    other.arrivals.push_back({time_ns, std::move(frame)});
    other.changed.notify_all();
    if (draw_chance(impl_->random, impl_->options.connection_loss)) impl_->break_wire(*wire_, false, "loss");
    co_return ok();
  }

  // The other end reads what was sent before, then the end.
  void close() override {
    if (std::exchange(closed_, true)) return;
    wire_->inboxes[side_].changed.notify_all();
    Inbox& other = wire_->inboxes[1 - side_];
    const std::int64_t last_ns = other.arrivals.empty() ? 0 : other.arrivals.back().time_ns;
    impl_->end_inbox(other, std::max(last_ns, impl_->now_ns() + impl_->delay_ns()));
  }

  int peer_uid() const override { return wire_->is_local ? 0 : -1; }

 private:
  void note(const char* what, const FrameHeader& header) {
    if (!impl_->options.trace) return;
    impl_->note(wire_->hosts[side_] + " " + what +
                (header.kind == FrameKind::kRequest ? " request " : " response ") +
                std::to_string(header.client) + "/" + std::to_string(header.request_id) + " on wire " +
                std::to_string(wire_->number));
  }

  std::shared_ptr<Impl> impl_;
  std::shared_ptr<Wire> wire_;
  const std::size_t side_;
  bool closed_ = false;
};

class SimNetwork::Impl::SimListener final : public Listener {
 public:
  SimListener(std::shared_ptr<Impl> impl, std::string key, std::string address, std::string host)
      : host_(std::move(host)),
        impl_(std::move(impl)),
        key_(std::move(key)),
        address_(std::move(address)),
        changed_(impl_->executor) {
    impl_->listeners[key_] = this;
  }
  ~SimListener() override { close(); }

  Task<Result<std::unique_ptr<Connection>>> accept() override {
    while (waiting_.empty()) {
      if (closed_) co_return Error(Errc::kUnavailable, "listener closed");
      co_await changed_.wait(-1);
    }
    std::unique_ptr<Connection> connection = std::move(waiting_.front());
    waiting_.pop_front();
    co_return connection;
  }

  void close() override {
    if (std::exchange(closed_, true)) return;
    impl_->listeners.erase(key_);
    waiting_.clear();
    changed_.notify_all();
  }

  std::string address() const override { return address_; }

  void offer(std::unique_ptr<Connection> connection) {
    waiting_.push_back(std::move(connection));
    changed_.notify_all();
  }

  const std::string host_;

 private:
  std::shared_ptr<Impl> impl_;
  const std::string key_;
  const std::string address_;
  Notify changed_;
  std::deque<std::unique_ptr<Connection>> waiting_;
  bool closed_ = false;
};

class SimNetwork::Impl::Host final : public Transport {
 public:
  Host(Impl& impl, std::string name) : impl_(impl), name_(std::move(name)) {}

  Task<Result<std::unique_ptr<Connection>>> connect(std::string address, std::int64_t timeout_ns) override {
    const auto impl = impl_.shared_from_this();
    const std::string name = name_;
    const bool is_local = address.starts_with('/');
    const auto colon = address.rfind(':');
    if (!is_local && colon == std::string::npos) co_return Error(Errc::kInvalid, "address '" + address + "'");
    const std::string target = is_local ? name : address.substr(0, colon);
    const std::string key = is_local ? name + address : address;
    Clock& clock = impl->executor.clock();
    const std::int64_t there_ns = impl->delay_ns();
    const std::int64_t back_ns = impl->delay_ns();
    co_await clock.sleep_ns(std::min(there_ns, timeout_ns));
    if (there_ns + back_ns > timeout_ns || impl->is_cut(name, target)) {
      co_await clock.sleep_ns(std::max<std::int64_t>(0, timeout_ns - there_ns));
      co_return Error(Errc::kUnavailable, address + ": no answer");
    }
    const auto listener = impl->listeners.find(key);
    const bool lost = draw_chance(impl->random, impl->options.connect_loss);
    if (listener == impl->listeners.end() || lost) {
      co_await clock.sleep_ns(back_ns);
      co_return Error(Errc::kUnavailable, address + ": refused");
    }
    auto wire = std::make_shared<Wire>(impl->executor, name, target, is_local);
    wire->number = impl->next_wire++;
    impl->wires.push_back(wire);
    impl->note("wire " + std::to_string(wire->number) + " from " + name + " to " + address);
    listener->second->offer(std::make_unique<End>(impl, wire, 1));
    std::unique_ptr<Connection> own = std::make_unique<End>(impl, wire, 0);
    co_await clock.sleep_ns(back_ns);
    co_return own;
  }

  Result<std::unique_ptr<Listener>> listen(const std::string& address) override {
    const bool is_local = address.starts_with('/');
    if (!is_local && !address.starts_with(name_ + ":")) {
      return Error(Errc::kInvalid, "address '" + address + "': not of host " + name_);
    }
    std::string actual = address;
    if (!is_local && address == name_ + ":0") actual = name_ + ":" + std::to_string(impl_.next_port++);
    const std::string key = is_local ? name_ + address : actual;
    if (impl_.listeners.contains(key)) return Error(Errc::kIo, "bind " + address + ": in use");
    impl_.note("listen " + key);
    return std::unique_ptr<Listener>(
        std::make_unique<SimListener>(impl_.shared_from_this(), key, actual, name_));
  }

 private:
  Impl& impl_;
  const std::string name_;
};

SimNetwork::SimNetwork(Executor& executor, std::uint64_t seed, SimOptions options)
    : impl_(std::make_shared<Impl>(executor, seed, options)) {}
SimNetwork::~SimNetwork() = default;

Transport& SimNetwork::host(const std::string& name) {
  auto& host = impl_->hosts[name];
  if (host == nullptr) host = std::make_unique<Impl::Host>(*impl_, name);
  return *host;
}

void SimNetwork::partition(const std::string& a, const std::string& b) {
  impl_->note("partition " + a + " " + b);
  impl_->cuts.insert(ordered(a, b));
  for (const auto& wire : impl_->living_wires()) {
    if (ordered(wire->hosts[0], wire->hosts[1]) == ordered(a, b)) impl_->break_wire(*wire, true, "partition");
  }
}

void SimNetwork::heal(const std::string& a, const std::string& b) {
  impl_->note("heal " + a + " " + b);
  impl_->cuts.erase(ordered(a, b));
}

void SimNetwork::heal_all() {
  impl_->note("heal all");
  impl_->cuts.clear();
}

void SimNetwork::crash(const std::string& name) {
  impl_->note("crash " + name);
  std::vector<Impl::SimListener*> gone;
  for (const auto& [key, listener] : impl_->listeners) {
    if (listener->host_ == name) gone.push_back(listener);
  }
  for (Impl::SimListener* listener : gone) listener->close();
  for (const auto& wire : impl_->living_wires()) {
    if (wire->hosts[0] != name && wire->hosts[1] != name) continue;
    impl_->break_wire(*wire, false, "crash");
    for (std::size_t side = 0; side < 2; ++side) {
      if (wire->hosts[side] != name) continue;
      wire->inboxes[side].arrivals.clear();
      Impl::end_inbox(wire->inboxes[side], impl_->now_ns());
    }
  }
}

void SimNetwork::set_options(SimOptions options) { impl_->options = options; }

bool SimNetwork::run_until(const std::function<bool()>& predicate, std::int64_t max_virtual_ns) {
  const std::int64_t end_ns = impl_->now_ns() + max_virtual_ns;
  for (;;) {
    while (impl_->executor.poll() > 0) {
    }
    if (predicate()) return true;
    if (impl_->now_ns() >= end_ns || !impl_->executor.advance()) return false;
  }
}

Random& SimNetwork::random() { return impl_->random; }
const std::vector<std::string>& SimNetwork::trace() const { return impl_->trace; }

}  // namespace gradfs
