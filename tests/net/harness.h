// Runs coroutines of a test on an executor, and a service that echoes.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "fs/net/rpc.h"

// ASSERT for coroutines, which cannot `return`.
#define CO_ASSERT(condition)                    \
  if (!(condition)) {                           \
    ADD_FAILURE() << #condition << " is false"; \
    co_return;                                  \
  }

namespace gradfs {

inline constexpr std::int64_t kTestLimit_ns = 30 * kSecond_ns;

// An executor in real time, and a directory for Unix sockets.
class ExecutorTest : public ::testing::Test {
 public:
  ExecutorTest() : scope_(executor_) {
    std::string name = (std::filesystem::temp_directory_path() / "gradfs-net-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    directory_ = name;
  }
  ~ExecutorTest() override { std::filesystem::remove_all(directory_); }

  // Runs the executor until the task has ended; fails after kTestLimit_ns.
  void run(Task<> task) {
    bool ended = false;
    executor_.poll();  // a loop that was stopped starts again
    scope_.spawn(note_end(std::move(task), ended));
    scope_.spawn(stop_late(++runs_));
    if (!ended) executor_.run();
    EXPECT_TRUE(ended) << "the test's coroutine did not end in time";
  }

  Executor executor_;
  Scope scope_;
  std::string directory_;

 private:
  Task<> note_end(Task<> task, bool& ended) {
    co_await std::move(task);
    ended = true;
    executor_.stop();
  }
  Task<> stop_late(int run) {
    co_await executor_.clock().sleep_ns(kTestLimit_ns);
    if (run == runs_) executor_.stop();
  }
  int runs_ = 0;
};

// Echoes `name` as inline_data and `parent` as the attribute's inode. Some names mean more:
//   "sleep MS" waits first, "after COUNT" until so many others are answered, "fail" and "huge" answer with an
//   error and with more than a frame holds.
class EchoService {
 public:
  struct Seen {
    std::uint64_t client = 0;
    std::uint64_t request_id = 0;
    bool is_retry = false;
    std::string name;
  };

  explicit EchoService(Executor& executor) : executor_(executor) {}

  void add_to(RpcServer& server) {
    server.handle<rpc::Lookup>([this](wire::LookupRequest request, CallContext& context) {
      return echo(std::move(request), context);
    });
    server.handle<rpc::OpenImage>([this](wire::OpenImageRequest request, CallContext& context) {
      return open_image(request, context);
    });
  }

  std::vector<Seen> seen;
  CallContext last;  // without its descriptors
  std::size_t answered = 0;
  std::size_t running = 0;
  std::size_t running_max = 0;
  std::size_t descriptors = 1;  // how many OpenImage hands out

 private:
  Task<Result<wire::AttrResponse>> echo(wire::LookupRequest request, CallContext& context) {
    seen.push_back({context.client, context.request_id, context.is_retry, request.name()});
    last.deadline_ns = context.deadline_ns;
    last.peer_uid = context.peer_uid;
    last.peer_epoch = context.peer_epoch;
    running_max = std::max(running_max, ++running);
    if (request.name().starts_with("sleep ")) {
      co_await executor_.clock().sleep_ns(std::stoll(request.name().substr(6)) * kMillisecond_ns);
    }
    if (request.name().starts_with("after ")) {
      while (answered < std::stoull(request.name().substr(6))) {
        co_await executor_.clock().sleep_ns(kMillisecond_ns);
      }
    }
    ++answered;
    --running;
    if (request.name() == "fail") co_return Error(Errc::kNotEmpty, "the detail");
    wire::AttrResponse response;
    response.mutable_attr()->set_inode(request.parent());
    response.set_inline_data(request.name() == "huge" ? std::string(kMaxMessageBytes + 1, 'h')
                                                      : request.name());
    co_return response;
  }

  // One descriptor of a file that holds the inode's number.
  Task<Result<wire::OpenImageResponse>> open_image(wire::OpenImageRequest request, CallContext& context) {
    const std::string text = std::to_string(request.inode());
    for (std::size_t i = 0; i < descriptors; ++i) {
      UniqueFd fd(::memfd_create("image", MFD_CLOEXEC));
      GRADFS_CO_TRYV(write_fully_at(fd.get(), std::as_bytes(std::span(text)), 0));
      context.reply_descriptors.push_back(std::move(fd));
    }
    wire::OpenImageResponse response;
    response.set_size(text.size());
    co_return response;
  }

  Executor& executor_;
};

inline Task<Result<wire::AttrResponse>> call_echo(RpcClient& client, std::string name, std::uint64_t parent,
                                                  CallOptions options) {
  wire::LookupRequest request;
  request.set_name(std::move(name));
  request.set_parent(parent);
  co_return co_await client.call<rpc::Lookup>(std::move(request), options);
}

}  // namespace gradfs
