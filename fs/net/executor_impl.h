// The Asio side of Executor. Only fs/net includes it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <list>
#include <map>
#include <memory>

#include "fs/net/executor.h"

namespace gradfs {

struct Executor::Impl {
  explicit Impl(Time mode);

  using VirtualTimers = std::multimap<std::int64_t, boost::asio::steady_timer*>;
  using Watched = std::list<boost::asio::posix::stream_descriptor>;

  const Time time;
  // Simulated time, and who waits for it (in order of time, then of coming). Before `context`, whose
  // destructor destroys the coroutines that still wait, and their waiters with them.
  std::int64_t virtual_now_ns = kSecond_ns;
  VirtualTimers virtual_timers;
  std::unique_ptr<Clock> clock;
  boost::asio::io_context context;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard;
  std::unique_ptr<boost::asio::signal_set> signals;
  Watched watched;
};

}  // namespace gradfs
