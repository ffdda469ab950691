// SimNetwork: the simulated Transport, for one executor in simulated time. Hosts are names; all of them live
// in one process. Everything that chance decides is drawn from the seed, so that a seed at a commit
// reproduces a run.
//
//   Executor executor(Executor::Time::kSimulated);
//   SimNetwork network(executor, seed, {.connection_loss = 0.01});
//   RpcServer server(executor);
//   server.listen(network.host("alpha"), "alpha:7400");
//   RpcClient client(executor, network.host("beta"), "alpha:7400", 1);
//   network.run_until([&] { return done; }, 60 * kSecond_ns);
//
// As with TCP, the frames of a connection arrive in order or not at all, and different connections overtake
// each other. A connection that breaks loses some of what is on its way, and each end learns of it at a time
// of its own.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fs/net/transport.h"

namespace gradfs {

struct SimOptions {
  // Each frame, and each half of a connect, takes a time in this range.
  std::int64_t delay_min_ns = kMillisecond_ns / 20;
  std::int64_t delay_max_ns = 2 * kMillisecond_ns;
  // The chance of each frame that its connection breaks with it, and of each connect that it is refused.
  double connection_loss = 0;
  double connect_loss = 0;
  // After a partition or a crash, each end of a broken connection learns of it after a time in this range.
  std::int64_t notice_min_ns = 0;
  std::int64_t notice_max_ns = kSecond_ns;
  bool trace = false;  // keep trace()
};

// One executor's thread. Connections and coroutines that are left over may outlive it.
class SimNetwork {
 public:
  SimNetwork(Executor& executor, std::uint64_t seed, SimOptions options);
  ~SimNetwork();
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  // The transport of a host, made at its first use; it lives as long as the network. It listens on
  // "HOST:PORT" of its own name (port 0: a free one) and on "/path", which only its own host reaches. Frames
  // between two ends on one host may carry descriptors.
  Transport& host(const std::string& name);

  // No frame and no connect passes between the two any more; their connections break, and frames on the way
  // are lost.
  void partition(const std::string& a, const std::string& b);
  void heal(const std::string& a, const std::string& b);
  void heal_all();
  // All connections of the host break and its listeners are gone. It may listen again at once. What runs on
  // it is the caller's to end: its coroutines go on, but nothing they send arrives.
  void crash(const std::string& name);
  // From now on; what is on its way keeps its time.
  void set_options(SimOptions options);

  // Runs what is ready and moves the time from timer to timer, until the predicate holds (true), or
  // max_virtual_ns have passed, or nobody waits for anything (false). It is asked each time before the clock
  // moves.
  bool run_until(const std::function<bool()>& predicate, std::int64_t max_virtual_ns);
  // The same draws as the network's own: for faults and workloads of a test.
  Random& random();
  // One line for each event, with its time. The same seed and program give the same lines.
  [[nodiscard]] const std::vector<std::string>& trace() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// A value in [low, high], and true with a probability.
std::int64_t draw_between(Random& random, std::int64_t low, std::int64_t high);
bool draw_chance(Random& random, double probability);

}  // namespace gradfs
