#include "trainer/peers/broadcast.h"

#include <algorithm>
#include <barrier>
#include <optional>
#include <thread>

#include "trainer/peers/socket_peer.h"
#include "trainer/peers/updater.h"

namespace gradfs::trainer {
namespace {

constexpr int kAcceptTick_ms = 50;
constexpr std::int64_t kHelloWait_s = 2;  // of a connection that may be a stranger's

struct Hello {
  std::uint64_t token = 0;  // of the run
  std::uint64_t worker = 0;
};
struct Reply {
  std::uint32_t outcome = 0;  // PushOutcome of the worker's last gradient
};
struct Push {
  std::uint64_t step = 0;
};

template <class Message>
std::span<const std::byte> bytes_of(const Message& message) {
  return std::as_bytes(std::span(&message, 1));
}

template <class Message>
Result<Message> read_message(TcpSocket& socket) {
  Message message;
  GRADFS_TRYV(socket.read_all(std::as_writable_bytes(std::span(&message, 1))));
  return message;
}

class BroadcastExchange final : public Exchange {
 public:
  BroadcastExchange(TcpSocket socket, FloatArray parameters, FloatArray gradient)
      : socket_(std::move(socket)), parameters_(std::move(parameters)), gradient_(std::move(gradient)) {}

  Result<std::span<const float>> current() override {
    if (!received_) {
      GRADFS_TRYV(receive());
    }
    return parameters_.span();
  }
  std::span<float> gradient() override { return gradient_.span(); }
  [[nodiscard]] std::uint64_t bytes_moved() const override { return bytes_moved_; }

  Result<PushOutcome> push(std::uint64_t step, double loss) override {
    const Push push{step};
    GRADFS_TRYV(socket_.write_all(bytes_of(push), std::as_bytes(gradient_.span())));
    bytes_moved_ += gradient_.size() * sizeof(float);
    return receive();
  }

 private:
  Result<PushOutcome> receive() {
    GRADFS_TRY(const Reply reply, read_message<Reply>(socket_));
    GRADFS_TRYV(socket_.read_all(std::as_writable_bytes(parameters_.span())));
    bytes_moved_ += parameters_.size() * sizeof(float);
    received_ = true;
    return static_cast<PushOutcome>(reply.outcome);
  }

  TcpSocket socket_;
  FloatArray parameters_;
  FloatArray gradient_;
  std::uint64_t bytes_moved_ = 0;
  bool received_ = false;
};

// The driver: a thread for each worker sends and receives; whoever comes last to the end of a round takes the
// step, while the others wait.
class Driver {
 public:
  Driver(PeerModel& model, RunControl& control, std::unique_ptr<Updater> updater)
      : model_(model), control_(control), updater_(std::move(updater)) {}

  // Waits for a connection of each worker that is not gone. Others that connect are turned away.
  Result<void> gather(TcpListener& listener, std::size_t workers, std::uint64_t token) {
    std::vector<bool> connected(workers);
    const auto missing = [&] {
      for (std::size_t i = 0; i < workers; ++i) {
        if (!connected[i] && !control_.gone[i].load(std::memory_order_acquire)) return true;
      }
      return false;
    };
    while (missing()) {
      Result<TcpSocket> socket = listener.accept(kAcceptTick_ms);
      if (!socket && socket.error().code == Errc::kTimeout) continue;
      if (!socket) return socket.error();
      socket.value().limit_reads(kHelloWait_s);
      const Result<Hello> hello = read_message<Hello>(socket.value());
      if (!hello || hello.value().token != token) continue;
      socket.value().limit_reads(kPeerWait_s);
      const std::size_t worker = hello.value().worker;
      if (worker >= workers || connected[worker]) continue;
      connected[worker] = true;
      members_.emplace_back();
      members_.back().socket = std::move(socket.value());
      GRADFS_TRY(members_.back().gradient, FloatArray::make_private(model_.layout.parameters()));
    }
    return ok();
  }

  void run() {
    if (members_.empty()) return;
    const auto end_round = [this]() noexcept { step(); };
    std::barrier round(static_cast<std::ptrdiff_t>(members_.size()), end_round);
    std::vector<std::jthread> threads;
    for (Member& member : members_) {
      threads.emplace_back([this, &member, &round] {
        while (serve(member)) round.arrive_and_wait();
        round.arrive_and_drop();
      });
    }
  }

 private:
  struct Member {
    TcpSocket socket;
    FloatArray gradient;
    bool has_gradient = false;
    PushOutcome outcome = PushOutcome::kCounted;
  };

  // One turn of a worker. False when it has left.
  bool serve(Member& member) {
    member.has_gradient = false;
    const Reply reply{static_cast<std::uint32_t>(member.outcome)};
    if (!member.socket.write_all(bytes_of(reply), std::as_bytes(model_.parameters.span()))) return false;
    if (!read_message<Push>(member.socket)) return false;
    if (!member.socket.read_all(std::as_writable_bytes(member.gradient.span()))) return false;
    member.has_gradient = true;
    return true;
  }

  void step() {
    std::vector<const float*> gradients;
    for (Member& member : members_) {
      if (!member.has_gradient) continue;
      const bool finite = updater_->is_finite(member.gradient.span());
      member.outcome = finite ? PushOutcome::kCounted : PushOutcome::kRefused;
      member.has_gradient = false;
      if (finite) gradients.push_back(member.gradient.data());
    }
    if (gradients.empty()) return;
    updater_->apply(model_.parameters.span(), gradients, 1.0F / static_cast<float>(gradients.size()));
    control_.version.fetch_add(1);
  }

  PeerModel& model_;
  RunControl& control_;
  std::unique_ptr<Updater> updater_;
  std::vector<Member> members_;
};

class Broadcast final : public SocketPeer {
 public:
  using SocketPeer::SocketPeer;
  [[nodiscard]] std::string name() const override { return "broadcast"; }
  [[nodiscard]] std::string service() const override { return "driver"; }

  Result<void> serve() override {
    GRADFS_TRY(std::unique_ptr<Updater> updater,
               Updater::make(model_.layout, model_.config, update_threads(1)));
    Driver driver(model_, *options_.control, std::move(updater));
    GRADFS_TRYV(driver.gather(listener(), options_.workers, token()));
    driver.run();
    return ok();
  }

  Result<std::unique_ptr<Exchange>> make_exchange(std::size_t worker) override {
    GRADFS_TRY(TcpSocket socket, TcpSocket::connect(listener().port()));
    const Hello hello{token(), worker};
    GRADFS_TRYV(socket.write_all(bytes_of(hello)));
    GRADFS_TRY(FloatArray parameters, FloatArray::make_private(this->parameters()));
    GRADFS_TRY(FloatArray gradient, FloatArray::make_private(this->parameters()));
    return std::unique_ptr<Exchange>(
        std::make_unique<BroadcastExchange>(std::move(socket), std::move(parameters), std::move(gradient)));
  }
};

}  // namespace

Result<std::unique_ptr<Architecture>> open_broadcast(const ExchangeOptions& options) {
  GRADFS_TRY(PeerModel model, open_peer_model(options));
  return std::unique_ptr<Architecture>(std::make_unique<Broadcast>(options, std::move(model)));
}

}  // namespace gradfs::trainer
