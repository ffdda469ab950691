// Filesystem against a server on a socket that plays the master: directories, links and errors as a table.
#include "client/lib/filesystem.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "client/lib/run_blocking.h"

namespace gradfs {
namespace {

class FakeMaster {
 public:
  FakeMaster(Executor& executor, Transport& transport) : server_(executor) {
    add(1, 0, "", wire::DIRECTORY);
    server_.handle<rpc::Hello>(
        [](const wire::HelloRequest&, CallContext&) { return answer(wire::HelloResponse()); });
    server_.handle<rpc::GetAttr>(
        [this](const wire::InodeRequest& request, CallContext&) { return get(request.inode()); });
    server_.handle<rpc::Lookup>([this](const wire::LookupRequest& request, CallContext&) {
      return get(find(request.parent(), request.name()));
    });
    server_.handle<rpc::Create>([this](const wire::CreateRequest& request, CallContext&) {
      return get(add(next_, request.parent(), request.name(), request.type()));
    });
    server_.handle<rpc::ReadDir>(
        [this](const wire::ReadDirRequest& request, CallContext&) { return answer(page(request)); });
    server_.handle<rpc::Unlink>([this](const wire::RemoveRequest& request, CallContext&) {
      nodes_.erase(find(request.parent(), request.name()));
      return answer(wire::AttrResponse());
    });
    server_.handle<rpc::Rmdir>([this](const wire::RemoveRequest& request, CallContext&) {
      nodes_.erase(find(request.parent(), request.name()));
      return answer(wire::Empty());
    });
    address_ = server_.listen(transport, "127.0.0.1:0").value();
  }

  struct Entry {
    std::uint64_t parent;
    std::string name;
    wire::Attr attr;
  };

  std::uint64_t add(std::uint64_t inode, std::uint64_t parent, const std::string& name, wire::FileType type,
                    const std::string& target = "") {
    Entry& entry = nodes_[inode];
    entry.parent = parent;
    entry.name = name;
    entry.attr.set_inode(inode);
    entry.attr.set_type(type);
    entry.attr.set_symlink_target(target);
    next_ = std::max(next_, inode + 1);
    return inode;
  }
  [[nodiscard]] std::uint64_t find(std::uint64_t parent, const std::string& name) const {
    for (const auto& [inode, entry] : nodes_) {
      if (entry.parent == parent && entry.name == name) return inode;
    }
    return 0;
  }
  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] std::size_t nodes() const { return nodes_.size(); }

 private:
  template <class Response>
  static Task<Result<Response>> answer(Response response) {
    co_return response;
  }
  Task<Result<wire::AttrResponse>> get(std::uint64_t inode) {
    const auto found = nodes_.find(inode);
    if (found == nodes_.end()) co_return Error(Errc::kNotFound);
    wire::AttrResponse response;
    *response.mutable_attr() = found->second.attr;
    co_return response;
  }
  [[nodiscard]] wire::ReadDirResponse page(const wire::ReadDirRequest& request) const {
    std::map<std::string, const Entry*> sorted;
    for (const auto& [inode, entry] : nodes_) {
      if (entry.parent == request.inode() && entry.name > request.after()) sorted[entry.name] = &entry;
    }
    wire::ReadDirResponse response;
    response.set_end(sorted.size() <= 3);  // small pages: the client must go on
    for (const auto& [name, entry] : sorted) {
      if (response.entries_size() == 3) break;
      auto& out = *response.add_entries();
      out.set_name(name);
      *out.mutable_attr() = entry->attr;
    }
    return response;
  }

  RpcServer server_;
  std::map<std::uint64_t, Entry> nodes_;
  std::uint64_t next_ = 2;
  std::string address_;
};

class FilesystemTest : public ::testing::Test {
 protected:
  FilesystemTest() {
    master_.add(2, 1, "models", wire::DIRECTORY);
    master_.add(3, 2, "mnist", wire::DIRECTORY);
    master_.add(4, 3, "model.safetensors", wire::REGULAR);
    master_.add(5, 1, "current", wire::SYMLINK, "models/./mnist");
    master_.add(6, 3, "up", wire::SYMLINK, "../..");
    master_.add(7, 3, "absolute", wire::SYMLINK, "/models");
    master_.add(8, 1, "loop", wire::SYMLINK, "loop");
  }
  Result<Node> resolve(const std::string& path, bool follow_last = true) {
    return run_blocking(executor_, filesystem_.resolve(path, follow_last));
  }

  Executor executor_;
  std::unique_ptr<Transport> transport_ = make_socket_transport(executor_);
  FakeMaster master_{executor_, *transport_};
  Filesystem filesystem_{executor_, *transport_, master_.address(), "test"};
};

TEST_F(FilesystemTest, ResolvesPathsAndLinks) {
  EXPECT_EQ(resolve("/").value().inode(), kRootInode);
  EXPECT_EQ(resolve("/models/mnist/model.safetensors").value().inode(), InodeId{4});
  EXPECT_EQ(resolve("/current/model.safetensors").value().inode(), InodeId{4});
  EXPECT_EQ(resolve("/models/mnist/up/models").value().inode(), InodeId{2});
  EXPECT_EQ(resolve("/models/mnist/absolute/mnist").value().inode(), InodeId{3});
  EXPECT_EQ(resolve("/models/../../models").value().inode(), InodeId{2});
}

TEST_F(FilesystemTest, TellsParentAndName) {
  const Node node = resolve("/current/model.safetensors").value();
  EXPECT_EQ(node.parent, InodeId{3});
  EXPECT_EQ(node.name, "model.safetensors");
}

TEST_F(FilesystemTest, TheLastLinkIsFollowedOnlyIfWanted) {
  EXPECT_EQ(resolve("/current", false).value().inode(), InodeId{5});
  EXPECT_EQ(resolve("/current", true).value().inode(), InodeId{3});
}

TEST_F(FilesystemTest, FailuresNameThePath) {
  EXPECT_EQ(resolve("/loop").error().code, Errc::kLoop);
  EXPECT_EQ(resolve("/models/mnist/model.safetensors/x").error().code, Errc::kNotDirectory);
  const auto missing = resolve("/models/none/x");
  EXPECT_EQ(missing.error().code, Errc::kNotFound);
  EXPECT_EQ(missing.error().detail, "/models/none/x: no such file or directory in gradfs");
}

TEST_F(FilesystemTest, MakesWhatIsMissingOfAPath) {
  const auto made = run_blocking(executor_, filesystem_.make_directories("/models/a/b"));
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(master_.find(master_.find(2, "a"), "b"), made.value().inode().value);
  const std::size_t before = master_.nodes();
  EXPECT_EQ(run_blocking(executor_, filesystem_.make_directories("/models/a/b")).value().inode(),
            made.value().inode());
  EXPECT_EQ(master_.nodes(), before);
  EXPECT_EQ(
      run_blocking(executor_, filesystem_.make_directories("/models/mnist/model.safetensors")).error().code,
      Errc::kNotDirectory);
}

TEST_F(FilesystemTest, ListsAllPages) {
  for (std::uint64_t i = 0; i < 10; ++i) master_.add(100 + i, 2, "f" + std::to_string(i), wire::REGULAR);
  const auto entries = run_blocking(executor_, filesystem_.list(InodeId{2})).value();
  ASSERT_EQ(entries.size(), 11U);
  EXPECT_EQ(entries.front().name(), "f0");
  EXPECT_EQ(entries.back().name(), "mnist");
}

TEST_F(FilesystemTest, RemovesATree) {
  master_.add(20, 2, "other", wire::DIRECTORY);
  ASSERT_TRUE(run_blocking(executor_, filesystem_.remove_tree(InodeId{2}, "mnist")).has_value());
  EXPECT_EQ(master_.find(2, "mnist"), 0U);
  EXPECT_EQ(master_.find(3, "model.safetensors"), 0U);
  EXPECT_EQ(master_.find(2, "other"), 20U);
  EXPECT_EQ(run_blocking(executor_, filesystem_.remove_tree(InodeId{2}, "mnist")).error().code,
            Errc::kNotFound);
}

}  // namespace
}  // namespace gradfs
