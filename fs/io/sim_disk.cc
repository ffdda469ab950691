#include "fs/io/sim_disk.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <optional>

#include "fs/base/clock.h"
#include "fs/net/sim.h"

namespace gradfs {
namespace {

struct Write {
  std::uint64_t offset;
  std::string bytes;
};

// A file or a directory. `data` is what readers see, `durable` what the last sync made safe.
struct Node {
  bool is_directory = false;
  std::string data;
  std::string durable;
  std::deque<Write> unsynced;
};

using NodePointer = std::shared_ptr<Node>;
using Tree = std::map<std::string, NodePointer>;  // by path

// A change of names: `node` appears at `to` and disappears at `from`; one of the two may be "".
struct Change {
  std::string from;
  std::string to;
  NodePointer node;
};

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

void apply_write(std::string& data, const Write& write) {
  const std::size_t end = write.offset + write.bytes.size();
  if (data.size() < end) data.resize(end);
  std::memcpy(data.data() + write.offset, write.bytes.data(), write.bytes.size());
}

void apply_change(Tree& tree, const Change& change) {
  if (!change.from.empty()) tree.erase(change.from);
  if (!change.to.empty()) tree[change.to] = change.node;
}

}  // namespace

struct SimulatedDisk::Impl {
  Impl(Executor& e, std::uint64_t seed, SimulatedDiskOptions o) : executor(e), random(seed), options(o) {
    tree["/"] = durable_tree["/"] =
        std::make_shared<Node>(Node{.is_directory = true, .data = {}, .durable = {}, .unsynced = {}});
  }

  // Takes the operation's time and tells whether it fails.
  Task<Result<void>> begin() {
    const std::uint64_t number = operations++;
    const std::uint64_t life = lives;
    const std::int64_t delay_ns = draw_between(random, options.delay_min_ns, options.delay_max_ns);
    co_await executor.clock().sleep_ns(delay_ns);
    if (number >= power_lost_at) is_on = false;
    if (!is_on || life != lives) co_return Error(Errc::kIo, "power lost");
    if (next_error) co_return Error(*std::exchange(next_error, std::nullopt), "injected");
    if (draw_chance(random, options.error_chance)) co_return Error(Errc::kIo, "injected");
    co_return ok();
  }

  Result<NodePointer> find(const std::string& path) const {
    const auto found = tree.find(path);
    if (found == tree.end()) return Error(Errc::kNotFound, path);
    return found->second;
  }

  Result<void> check_parent(const std::string& path) const {
    GRADFS_TRY(const NodePointer parent, find(parent_of(path)));
    if (!parent->is_directory) return Error(Errc::kNotDirectory, path);
    return ok();
  }

  bool has_children(const std::string& directory) const {
    const std::string prefix = directory + "/";
    const auto after = tree.lower_bound(prefix);
    return after != tree.end() && after->first.starts_with(prefix);
  }

  void change(Change change) {
    apply_change(tree, change);
    unsynced.push_back(std::move(change));
  }

  void settle(Node& node) {
    node.data = node.durable;
    for (Write& write : node.unsynced) {
      const auto arrived = draw_between(random, 0, 2 * static_cast<std::int64_t>(write.bytes.size()));
      write.bytes.resize(std::min(write.bytes.size(), static_cast<std::size_t>(arrived)));
      if (draw_chance(random, 0.5)) apply_write(node.data, write);
    }
    node.unsynced.clear();
    node.durable = node.data;
  }

  void restore_power() {
    const auto kept =
        static_cast<std::size_t>(draw_between(random, 0, static_cast<std::int64_t>(unsynced.size())));
    for (std::size_t i = 0; i < kept; ++i) apply_change(durable_tree, unsynced[i]);
    unsynced.clear();
    tree = durable_tree;
    for (const auto& [path, node] : tree) settle(*node);
    is_on = true;
    power_lost_at = std::numeric_limits<std::uint64_t>::max();
    ++lives;
  }

  Executor& executor;
  SeededRandom random;
  const SimulatedDiskOptions options;
  Tree tree;
  Tree durable_tree;
  std::deque<Change> unsynced;
  std::uint64_t operations = 0;
  std::uint64_t power_lost_at = std::numeric_limits<std::uint64_t>::max();
  bool is_on = true;
  std::uint64_t lives = 1;  // files of an earlier one are dead
  std::optional<Errc> next_error;
};

namespace {

class SimulatedFile final : public File {
 public:
  SimulatedFile(std::shared_ptr<SimulatedDisk::Impl> disk, NodePointer node, bool may_write)
      : disk_(std::move(disk)), node_(std::move(node)), may_write_(may_write), life_(disk_->lives) {}

  Task<Result<std::size_t>> read_at(std::span<std::byte> out, std::uint64_t offset) override {
    GRADFS_CO_TRYV(co_await begin());
    if (offset >= node_->data.size()) co_return std::size_t{0};
    const std::size_t length = std::min(out.size(), static_cast<std::size_t>(node_->data.size() - offset));
    std::memcpy(out.data(), node_->data.data() + offset, length);
    co_return length;
  }

  Task<Result<void>> write_at(std::span<const std::byte> in, std::uint64_t offset) override {
    auto begun = co_await begin();
    if (!may_write_) co_return Error(Errc::kInvalid, "not open for writing");
    Write write{offset, std::string(reinterpret_cast<const char*>(in.data()), in.size())};
    if (!begun) {  // any part of it may have been written
      const auto part = draw_between(disk_->random, 0, static_cast<std::int64_t>(in.size()));
      write.bytes.resize(static_cast<std::size_t>(part));
    }
    if (life_ == disk_->lives && !write.bytes.empty()) {
      apply_write(node_->data, write);
      node_->unsynced.push_back(std::move(write));
    }
    co_return begun;
  }

  Task<Result<void>> sync() override {
    GRADFS_CO_TRYV(co_await begin());
    node_->durable = node_->data;
    node_->unsynced.clear();
    co_return ok();
  }

  Result<std::uint64_t> size() override { return std::uint64_t{node_->data.size()}; }

 private:
  Task<Result<void>> begin() {
    GRADFS_CO_TRYV(co_await disk_->begin());
    if (life_ != disk_->lives) co_return Error(Errc::kIo, "opened before the power was lost");
    co_return ok();
  }

  const std::shared_ptr<SimulatedDisk::Impl> disk_;
  const NodePointer node_;
  const bool may_write_;
  const std::uint64_t life_;
};

}  // namespace

SimulatedDisk::SimulatedDisk(Executor& executor, std::uint64_t seed, SimulatedDiskOptions options)
    : impl_(std::make_shared<Impl>(executor, seed, options)) {}
SimulatedDisk::~SimulatedDisk() = default;

Task<Result<std::unique_ptr<File>>> SimulatedDisk::open(std::string path, OpenOptions options) {
  const auto impl = impl_;
  GRADFS_CO_TRYV(co_await impl->begin());
  auto found = impl->find(path);
  if (found && options.create && options.exclusive) co_return Error(Errc::kExists, path);
  if (found && found.value()->is_directory && options.write) co_return Error(Errc::kIsDirectory, path);
  if (!found) {
    if (!options.create) co_return std::move(found).error();
    GRADFS_CO_TRYV(impl->check_parent(path));
    found = std::make_shared<Node>();
    impl->change({"", path, found.value()});
  } else if (options.truncate) {
    // As a filesystem that gives the name new, empty contents: the old ones may be back after a loss of
    // power.
    auto emptied = std::make_shared<Node>();
    impl->change({"", path, emptied});
    found = emptied;
  }
  std::unique_ptr<File> file = std::make_unique<SimulatedFile>(impl, found.value(), options.write);
  co_return file;
}

Task<Result<void>> SimulatedDisk::rename(std::string from, std::string to) {
  const auto impl = impl_;
  GRADFS_CO_TRYV(co_await impl->begin());
  GRADFS_CO_TRY(const NodePointer node, impl->find(from));
  GRADFS_CO_TRYV(impl->check_parent(to));
  if (node->is_directory) co_return Error(Errc::kNotSupported, "rename of a directory");
  if (auto there = impl->find(to); there && there.value()->is_directory)
    co_return Error(Errc::kIsDirectory, to);
  if (from != to) impl->change({from, to, node});
  co_return ok();
}

Task<Result<void>> SimulatedDisk::remove(std::string path) {
  const auto impl = impl_;
  GRADFS_CO_TRYV(co_await impl->begin());
  GRADFS_CO_TRY(const NodePointer node, impl->find(path));
  if (node->is_directory && impl->has_children(path)) co_return Error(Errc::kNotEmpty, path);
  impl->change({path, "", node});
  co_return ok();
}

Task<Result<std::vector<std::string>>> SimulatedDisk::list(std::string directory) {
  const auto impl = impl_;
  GRADFS_CO_TRYV(co_await impl->begin());
  GRADFS_CO_TRY(const NodePointer node, impl->find(directory));
  if (!node->is_directory) co_return Error(Errc::kNotDirectory, directory);
  std::vector<std::string> names;
  for (const auto& [path, ignored] : impl->tree) {
    if (path != "/" && parent_of(path) == directory) names.push_back(path.substr(path.rfind('/') + 1));
  }
  co_return names;
}

Task<Result<void>> SimulatedDisk::make_directory(std::string path) {
  const auto impl = impl_;
  GRADFS_CO_TRYV(co_await impl->begin());
  if (impl->find(path)) co_return Error(Errc::kExists, path);
  GRADFS_CO_TRYV(impl->check_parent(path));
  auto node = std::make_shared<Node>();
  node->is_directory = true;
  impl->change({"", path, node});
  co_return ok();
}

Task<Result<void>> SimulatedDisk::sync_directory(std::string directory) {
  const auto impl = impl_;
  GRADFS_CO_TRYV(co_await impl->begin());
  GRADFS_CO_TRY(const NodePointer node, impl->find(directory));
  if (!node->is_directory) co_return Error(Errc::kNotDirectory, directory);
  const auto touches = [&directory](const Change& change) {
    return (!change.from.empty() && parent_of(change.from) == directory) ||
           (!change.to.empty() && parent_of(change.to) == directory);
  };
  const auto last = std::find_if(impl->unsynced.rbegin(), impl->unsynced.rend(), touches);
  const auto count = impl->unsynced.rend() - last;
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    apply_change(impl->durable_tree, impl->unsynced.front());
    impl->unsynced.pop_front();
  }
  co_return ok();
}

std::uint64_t SimulatedDisk::operations() const { return impl_->operations; }
void SimulatedDisk::lose_power_at(std::uint64_t operation) { impl_->power_lost_at = operation; }
void SimulatedDisk::lose_power() { impl_->is_on = false; }
void SimulatedDisk::restore_power() { impl_->restore_power(); }
void SimulatedDisk::fail_next(Errc code) { impl_->next_error = code; }

}  // namespace gradfs
