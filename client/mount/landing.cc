// When does a close mean "this file is finished"? A process that exits closes; a shell closes what it has
// dup2()ed away; a forked child closes what it inherited; a map outlives its descriptor. The rule: a close
// lands when neither the opener nor any of its descendants holds the file any more, by a descriptor or by a
// writable map, and no signal is ending the closer. What no close decided is decided when the last descriptor
// anywhere is gone (release).
#include <fcntl.h>

#include "client/mount/mount.h"
#include "client/mount/processes.h"

namespace gradfs {
namespace {

constexpr std::size_t kProcessesMax = 64;
constexpr std::int64_t kMapsPatience_ns = 50 * kMillisecond_ns;
constexpr std::int64_t kUnmapGrace_ns = 2 * kSecond_ns;
constexpr std::int64_t kUnmapPoll_ns = 5 * kMillisecond_ns;

}  // namespace

// Files whose close is a push.
bool Mount::is_drop(const OpenFile& file) {
  const auto found = nodes_.find(file.inode);
  if (found == nodes_.end() || !file.write || file.landed) return false;
  const Node& known = found->second;
  if (file.staging_image.valid()) return true;
  if (known.attr.role() == wire::CONFIG) return file.dirty;
  return known.attr.role() == wire::GRADIENT && !known.name.starts_with('.') && !known.unlinked;
}

Task<Mount::Landing> Mount::decide(std::shared_ptr<OpenFile> file, pid_t closer) {
  const ProcessState state = process_state(closer);
  if (state.group == 0) co_return Landing::kLater;  // cannot be resolved: when the last descriptor is gone
  if (state.signal != 0) {
    if (state.group == file->opener) file->writer_killed = true;
    co_return Landing::kNever;
  }
  // The opener is gone and others have its descriptor: nobody knows how many, so the last one decides.
  if (state.group != file->opener && process_state(file->opener).group == 0) co_return Landing::kLater;
  std::vector<pid_t> processes;
  for (const pid_t root : {file->opener, state.group}) {
    for (const pid_t process : process_tree(root, kProcessesMax)) {
      if (std::find(processes.begin(), processes.end(), process) == processes.end())
        processes.push_back(process);
    }
  }
  const bool may_be_mapped = (file->flags & O_ACCMODE) == O_RDWR;
  const bool held = co_await someone_holds(std::move(processes), file->inode, may_be_mapped);
  if (file->landed) co_return Landing::kNever;  // another close was faster
  co_return held ? Landing::kLater : Landing::kNow;
}

Task<bool> Mount::someone_holds(std::vector<pid_t> processes, InodeId inode, bool may_be_mapped) {
  const std::uint64_t number = to_node(inode);
  for (const pid_t process : processes) {
    if (write_descriptors_of(process, number, device_number_) > 0) co_return true;
  }
  if (!may_be_mapped) co_return false;
  // Reading maps may block while the closer is in execve, until we answer: a helper reads, we wait a little.
  struct Look {
    explicit Look(Executor& executor) : waiter(executor) {}
    Waiter waiter;
    bool mapped = true;
  };
  auto look = std::make_shared<Look>(executor_);
  scope_.spawn(look_for_maps(std::move(processes), number, [look](bool mapped) {
    look->mapped = mapped;
    look->waiter.wake();
  }));
  co_await look->waiter.wait(kMapsPatience_ns);
  co_return look->mapped;
}

Task<> Mount::look_for_maps(std::vector<pid_t> processes, std::uint64_t number,
                            std::function<void(bool)> found) {
  bool mapped = false;
  co_await helper_.run([&] {
    for (const pid_t process : processes)
      mapped = mapped || has_writable_map(process, number, device_number_);
  });
  found(mapped);
}

// All descriptors are gone. A write lease on the image can be had when nothing maps it for writing; CPython,
// for one, closes a map's descriptor just before it unmaps, so a moment of patience is right.
Task<bool> Mount::wait_unmapped(InodeId inode) {
  if (!passthrough_) co_return true;  // an ordinary FUSE file is released after its maps
  const std::int64_t deadline_ns = executor_.clock().now_ns() + kUnmapGrace_ns;
  for (;;) {
    const int fd = node(inode).image.get();
    if (::fcntl(fd, F_SETLEASE, F_WRLCK) == 0) {
      ::fcntl(fd, F_SETLEASE, F_UNLCK);
      co_return true;
    }
    if (errno != EAGAIN || executor_.clock().now_ns() >= deadline_ns) co_return errno != EAGAIN;
    co_await executor_.clock().sleep_ns(kUnmapPoll_ns);
  }
}

}  // namespace gradfs
