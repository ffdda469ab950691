// BoundModel: a model directory with the descent coprocessor bound to it, as its worker runs it.
//
// A push goes through four steps, and a kill at any of them changes nothing that was acknowledged:
//   stage    the landed file is opened and validated (staging.cc); nothing is applied
//   commit   the master gives it the next sequence number, in the batch that takes its name away. A slot's
//            commit goes out while its values are still looked at; what is found wrong then makes the number
//            void at the master, before anybody is told
//   apply    numbers are applied in order, by one thread that drives the compute pool
//   retire   the master forgets applied numbers, and the images of landed files go
// After a restart load() reads where the control file stands and applies the committed numbers that are
// missing.
//
// Everything but the bodies of staging and applying runs on the executor's thread.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <variant>

#include "coproc/descent/engine.h"
#include "fs/block/image_store.h"
#include "fs/net/rpc.h"

namespace gradfs {

// What all bindings of a worker share. Outlives them.
struct WorkerContext {
  Executor& executor;
  RpcClient& master;
  ImageStore& store;
  ThreadPool& compute;   // descent and validation
  WorkerPool& blocking;  // system calls that take long, validation
  WorkerId worker;
};

class BoundModel {
 public:
  // Opens the files, repairs what a killed worker left, and queues the committed numbers that are not
  // applied. kLost: an image or the control file is gone. kCorrupt: they do not belong together.
  static Task<Result<std::shared_ptr<BoundModel>>> load(const WorkerContext& context,
                                                        wire::BindingState state);
  ~BoundModel();

  // The whole way of a push; returns when it is acknowledged (applied, or committed where the configuration
  // says so) or refused. A repeat with the same identity joins the one under way, or gets its outcome.
  Task<Result<wire::PushResponse>> push(wire::PushRequest request);
  // Returns when the bytes that the push names are frozen: applied, refused, or copied. Then its writer may
  // be let go.
  Task<Result<void>> detach(wire::Identity identity);
  [[nodiscard]] wire::ModelStatusResponse status();
  // Ends the loops; numbers that are not applied stay committed.
  Task<> stop();

  [[nodiscard]] BindingId binding() const { return BindingId{state_.binding()}; }
  [[nodiscard]] Sequence watermark() const { return engine_->watermark(); }
  [[nodiscard]] InodeId directory() const { return InodeId{state_.directory()}; }

 private:
  using IdentityKey = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>;
  struct ConfigChange {
    DescentConfig config;
    std::string text;
    UniqueFd optimizer_file;  // valid only when the optimizer changes
    InodeId optimizer_inode;  // 0: as before
  };
  // What a number does to the model.
  using Input = std::variant<Gradient, Assignment, ConfigChange>;

  // A number on its way from commit to applied.
  struct Number {
    explicit Number(Executor& executor) : changed(executor) {}
    Sequence sequence;
    wire::PushKind kind = wire::PUSH_NONE;
    InodeId inode;
    std::optional<Input> input;
    bool staged = false;  // the input is a copy of what landed
    Result<void> outcome = Error(Errc::kUnavailable);
    // Set where there is no input because it was refused after its commit, until the master knows that.
    std::optional<wire::PushRequest> to_refuse;
    enum class Phase { kQueued, kApplying, kDone } phase = Phase::kQueued;
    Notify changed;
  };
  // A push on its way, by identity: its first caller runs it, others join.
  struct ActivePush {
    explicit ActivePush(Executor& executor) : changed(executor) {}
    std::shared_ptr<Number> number;  // once committed
    bool done = false;
    Result<wire::PushResponse> outcome = Error(Errc::kUnavailable);
    Notify changed;
  };

  BoundModel(const WorkerContext& context, wire::BindingState state);

  // A pass over a small model takes about as long as waking another thread for it, so the executor's own
  // makes it (with the compute pool). What else the executor has to do waits a millisecond or two.
  [[nodiscard]] bool is_small() const { return layout_->parameters() <= kSmallParameters; }
  static constexpr std::uint64_t kSmallParameters = 4'000'000;

  // bound_model.cc
  Result<void> open_engine();
  Task<> apply_loop();
  // How many of the first numbers one pass over the model may take: gradients in a row, or 1.
  [[nodiscard]] std::size_t together() const;
  Task<Result<void>> apply_first(std::size_t count);
  void make_void(const Number& number, const Error& why);
  Task<> retire_loop();
  Result<void> apply_input(Number& number);
  Result<void> apply_inputs(std::span<const std::shared_ptr<Number>> numbers);
  void number_applied(Number& number);
  Task<Result<void>> wait_applied(Sequence sequence);

  // staging.cc: from bytes to an Input
  Task<Result<Input>> stage(const wire::PushRequest& request);
  Task<Result<Input>> stage_config(std::string text, std::uint64_t known_optimizer_inode);
  Result<Input> stage_file(wire::PushKind kind, const UniqueFd& image, Mapping kept = {});
  LandedMap take_slot_map(InodeId inode);
  void prune_slot_maps();
  Task<Result<UniqueFd>> make_optimizer_file(Optimizer optimizer, InodeId* inode);
  Task<Result<std::shared_ptr<Number>>> number_from_row(wire::CommittedPush row);

  static constexpr std::int64_t kCommitTimeout_ns = 120 * kSecond_ns;
  [[nodiscard]] static bool is_gradient(wire::PushKind kind);
  // Refusals are about the file; everything else (the master is away, no memory) says nothing about it.
  [[nodiscard]] static bool is_refusal(Errc code);

  // push.cc
  Task<Result<wire::PushResponse>> run_push(std::shared_ptr<ActivePush> active, wire::PushRequest request);
  Task<Result<void>> freeze(Number& number);
  // Returns `error` once the master has it in rejected/, or cannot be told.
  Task<Error> reject(const wire::PushRequest& request, Error error);
  Task<> refuse_committed(Number& number);
  Task<Result<void>> send_refusal(const wire::PushRequest& request, const Error& error, Sequence voided);
  Task<Result<InodeId>> copy_for_rejected(InodeId slot, std::uint64_t* size);
  Task<Result<wire::PushResponse>> known_outcome(const wire::PushRequest& request, bool* known);
  [[nodiscard]] wire::PushResponse response_now(Sequence sequence) const;

  // commit.cc
  Task<Result<std::shared_ptr<Number>>> stage_and_commit(const wire::PushRequest& request);
  Task<Result<std::shared_ptr<Number>>> commit(const wire::PushRequest& request, Input input);
  Task<Result<std::shared_ptr<Number>>> commit_while_checking(const wire::PushRequest& request);
  Result<wire::CommitPushRequest> commit_request(const wire::PushRequest& request, const Input& input) const;
  // A commit on its way to the master.
  struct CommitCall {
    explicit CommitCall(Executor& executor) : changed(executor) {}
    std::optional<Result<wire::CommitPushResponse>> reply;
    Notify changed;
  };
  Result<void> send_and_check(const wire::PushRequest& request, const std::shared_ptr<CommitCall>& call,
                              Result<Input>& input);
  Task<> send_commit(std::shared_ptr<CommitCall> call, wire::CommitPushRequest request);
  Task<Result<std::shared_ptr<Number>>> take_number(const wire::PushRequest& request,
                                                    wire::CommitPushResponse reply, Result<Input> input);
  Task<Result<void>> fill_gap(Sequence below);
  void enqueue(std::shared_ptr<Number> number);
  static void refuse_later(Number& number, Error error, const wire::Identity& identity,
                           const std::string& name);

  // model_status.cc
  void note_landed(const GradientMetadata& metadata);
  void note_applied();
  [[nodiscard]] std::string status_json() const;

  const WorkerContext context_;
  wire::BindingState state_;
  std::unique_ptr<ModelLayout> layout_;
  std::unique_ptr<Engine> engine_;
  WorkerPool applier_;  // one thread
  Scope scope_;

  // Committed: numbers are given under the mutex, so the queue is in order.
  AsyncMutex commit_mutex_;
  DescentConfig committed_config_;
  Sequence last_queued_;
  std::deque<std::shared_ptr<Number>> queue_;
  Notify queue_changed_;

  // Applied, as of applied_.
  Sequence applied_;
  DescentConfig applied_config_;
  std::string applied_text_;
  InodeId applied_optimizer_;
  Sequence retired_;
  Notify applied_changed_;

  // Slots are pushed again and again: their maps are kept from one push to the next.
  struct SlotMap {
    LandedMap map;
    std::int64_t used_ns = 0;
  };
  std::map<InodeId, SlotMap> slot_maps_;

  std::map<IdentityKey, std::shared_ptr<ActivePush>> active_;
  bool stopping_ = false;
  std::optional<Error> failed_;  // the binding has stopped: why

  // For status.json.
  struct WorkerNote {
    std::uint64_t last_step = 0;
    double loss = 0;
    bool has_loss = false;
  };
  std::map<std::string, WorkerNote> workers_;
  std::deque<std::int64_t> applied_times_ns_;
  std::uint64_t refused_ = 0;
  std::optional<double> loss_;
  std::string last_refusal_;
};

}  // namespace gradfs
