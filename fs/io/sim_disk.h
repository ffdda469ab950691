// SimulatedDisk: a Disk in memory whose delays, errors and losses of power come from a seed.
//
// What it remembers over a loss of power is what a careful filesystem promises and no more:
// - a file's bytes as of its last sync; of the writes since then each may have reached the disk, in part or
// not at all;
// - of the changes to names (create, rename, remove, make_directory) a first part of those made since the
// directory of
//   the last one of them was synced, in order.
#pragma once

#include <memory>
#include <string>

#include "fs/io/disk.h"

namespace gradfs {

struct SimulatedDiskOptions {
  std::int64_t delay_min_ns = 10'000;  // of each operation
  std::int64_t delay_max_ns = kMillisecond_ns;
  double error_chance = 0;  // of each operation: kIo, and it had no effect (of a write, any)
};

// One executor's thread. Paths are absolute, and "/" exists. Files may outlive the disk.
class SimulatedDisk final : public Disk {
 public:
  SimulatedDisk(Executor& executor, std::uint64_t seed, SimulatedDiskOptions options);
  ~SimulatedDisk() override;

  Task<Result<std::unique_ptr<File>>> open(std::string path, OpenOptions options) override;
  Task<Result<void>> rename(std::string from, std::string to) override;
  Task<Result<void>> remove(std::string path) override;
  Task<Result<std::vector<std::string>>> list(std::string directory) override;
  Task<Result<void>> make_directory(std::string path) override;
  Task<Result<void>> sync_directory(std::string directory) override;

  // Operations so far, failed ones too.
  [[nodiscard]] std::uint64_t operations() const;
  // The power goes when operation number `operation` (from 0) would take effect: that one and all later ones
  // fail with kIo.
  void lose_power_at(std::uint64_t operation);
  // The same, now.
  void lose_power();
  // Settles from the seed what reached the disk. Files opened before stay dead.
  void restore_power();
  // The next operation fails with this code.
  void fail_next(Errc code);

  struct Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace gradfs
