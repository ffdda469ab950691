// Random operations against a simple tree in memory, and replay: the same entries give the same rows.
#include <map>

#include "fs/base/clock.h"
#include "tests/meta/harness.h"

namespace gradfs {
namespace {

// A tree with one name for each file.
struct Node {
  bool is_directory = false;
  std::map<std::string, std::unique_ptr<Node>> children;
  std::uint64_t inode = 0;
  Node* parent = nullptr;
};

class Reference {
 public:
  Reference() {
    root_.is_directory = true;
    root_.inode = kRoot;
    directories_[kRoot] = &root_;
  }
  Errc create(std::uint64_t parent, const std::string& name, bool is_directory) {
    Node* directory = find(parent);
    if (directory == nullptr) return Errc::kNotFound;
    return directory->children.contains(name) ? Errc::kExists
                                              : (made_ = {directory, name, is_directory}, Errc::kOk);
  }
  void created(std::uint64_t inode) {
    auto node = std::make_unique<Node>();
    node->is_directory = made_.is_directory;
    node->inode = inode;
    node->parent = made_.directory;
    if (node->is_directory) directories_[inode] = node.get();
    made_.directory->children[made_.name] = std::move(node);
  }
  Errc remove(std::uint64_t parent, const std::string& name, bool is_directory) {
    Node* directory = find(parent);
    if (directory == nullptr || !directory->children.contains(name)) return Errc::kNotFound;
    Node& node = *directory->children[name];
    if (node.is_directory != is_directory) return is_directory ? Errc::kNotDirectory : Errc::kIsDirectory;
    if (!node.children.empty()) return Errc::kNotEmpty;
    directories_.erase(node.inode);
    directory->children.erase(name);
    return Errc::kOk;
  }
  Errc rename(std::uint64_t parent, const std::string& name, std::uint64_t new_parent,
              const std::string& new_name) {
    Node* from = find(parent);
    Node* to = find(new_parent);
    if (from == nullptr || to == nullptr || !from->children.contains(name)) return Errc::kNotFound;
    Node* source = from->children[name].get();
    if (from == to && name == new_name) return Errc::kOk;
    for (Node* up = to; source->is_directory && up != nullptr; up = up->parent) {
      if (up == source) return Errc::kInvalid;
    }
    if (const auto found = to->children.find(new_name); found != to->children.end()) {
      Node& target = *found->second;
      if (source->is_directory && !target.is_directory) return Errc::kNotDirectory;
      if (!source->is_directory && target.is_directory) return Errc::kIsDirectory;
      if (!target.children.empty()) return Errc::kNotEmpty;
      directories_.erase(target.inode);
    }
    auto moved = std::move(from->children[name]);
    from->children.erase(name);
    moved->parent = to;
    to->children[new_name] = std::move(moved);
    return Errc::kOk;
  }
  std::uint64_t pick_directory(Random& random) {
    auto entry = directories_.begin();
    std::advance(entry, static_cast<std::ptrdiff_t>(random.next_u64() % directories_.size()));
    return entry->first;
  }
  const Node& root() const { return root_; }

 private:
  Node* find(std::uint64_t inode) {
    const auto found = directories_.find(inode);
    return found == directories_.end() ? nullptr : found->second;
  }
  struct Made {
    Node* directory;
    std::string name;
    bool is_directory;
  };
  Node root_;
  std::map<std::uint64_t, Node*> directories_;
  Made made_{};
};

std::uint64_t compare(Meta& meta, const Node& node) {
  std::vector<std::string> names;
  std::uint32_t links = 2;
  std::uint64_t inodes = 1;
  for (const auto& [name, child] : node.children) {
    names.push_back(name);
    EXPECT_EQ(meta.lookup(node.inode, name).value().attr().inode(), child->inode);
    if (child->is_directory) {
      ++links;
      inodes += compare(meta, *child);
    } else {
      ++inodes;
    }
  }
  EXPECT_EQ(meta.list(node.inode, 3), names);
  EXPECT_EQ(meta.attr(node.inode).link_count(), links);
  return inodes;
}

void run_random(Meta& meta, std::uint64_t seed, int steps, bool restarts) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  SeededRandom random(seed);
  Reference reference;
  const auto name = [&] { return std::string(1, static_cast<char>('a' + random.next_u64() % 6)); };
  for (int step = 0; step < steps; ++step) {
    const std::uint64_t directory = reference.pick_directory(random);
    const std::string first = name();
    const std::uint64_t choice = random.next_u64() % 10;
    if (choice < 4) {
      const bool is_directory = choice < 2;
      const Errc expected = reference.create(directory, first, is_directory);
      const auto made = meta.try_create(directory, first, is_directory ? wire::DIRECTORY : wire::REGULAR);
      ASSERT_EQ(code_of(made), expected);
      if (made) reference.created(made.value().attr().inode());
    } else if (choice < 6) {
      const Errc expected = reference.remove(directory, first, choice == 4);
      ASSERT_EQ(choice == 4 ? code_of(meta.rmdir(directory, first)) : code_of(meta.unlink(directory, first)),
                expected);
    } else {
      const std::uint64_t target = reference.pick_directory(random);
      const std::string second = name();
      const Errc expected = reference.rename(directory, first, target, second);
      ASSERT_EQ(code_of(meta.rename(directory, first, target, second)), expected) << "step " << step;
    }
    if (restarts && random.next_u64() % 200 == 0) meta.start();
  }
  EXPECT_EQ(compare(meta, reference.root()), meta.names().header().inodes());
}

TEST(RandomModelTest, MemoryStore) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    Meta meta(Meta::Kind::kMemory);
    run_random(meta, seed, 2000, false);
  }
}

TEST(RandomModelTest, RocksStoreWithRestarts) {
  Meta meta(Meta::Kind::kRocks);
  run_random(meta, 99, 2000, true);
}

TEST(ReplayTest, TheSameEntriesGiveTheSameRows) {
  Meta meta(Meta::Kind::kMemory);
  run_random(meta, 5, 500, false);
  Model model(meta);
  const auto session = meta.open_session();
  for (int i = 0; i < 20; ++i) {
    const std::string name = "g" + std::to_string(i);
    const auto file = meta.create_open(model.gradients(), name, session);
    if (i % 3 == 0) {
      model.reject(model.refusal("g", file.inode())).value();
    } else if (i % 3 == 1) {
      model.push(model.gradient(name, file.inode(), session)).value();
    }
  }
  model.retire(4).value();
  meta.call<rpc::Create>(Meta::create_request(kRoot, "once"), 3, 1).value();
  EXPECT_EQ(code_of(meta.call<rpc::Create>(Meta::create_request(kRoot, "once"), 3, 2)), Errc::kExists);
  meta.close_session(session).value();

  for (const auto kind : {Meta::Kind::kMemory, Meta::Kind::kRocks}) {
    Meta other(kind);  // its first entries are the same: the start of the epoch, and the worker
    for (const auto& entry : meta.entries) {
      if (entry.index() > other.names().applied_index()) (void)other.names().apply(entry);
    }
    EXPECT_EQ(dump(other.store()), dump(meta.store()));
  }
}

}  // namespace
}  // namespace gradfs
