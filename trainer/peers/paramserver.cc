#include "trainer/peers/paramserver.h"

#include <charconv>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

#include "trainer/peers/http.h"
#include "trainer/peers/socket_peer.h"
#include "trainer/peers/updater.h"

namespace gradfs::trainer {
namespace {

constexpr int kAcceptTick_ms = 50;
constexpr unsigned kOk = 200;
constexpr unsigned kBadRequest = 400;
constexpr unsigned kNotFound = 404;
constexpr unsigned kRefusedContent = 422;
constexpr std::size_t kStrangersMax = 64;  // connections beside the workers'
constexpr const char* kRunField = "Gradfs-Run";
constexpr const char* kWorkerField = "Gradfs-Worker";
constexpr const char* kStepField = "Gradfs-Step";

std::optional<std::uint64_t> number_in(const HttpFields& fields, const char* name) {
  const auto found = fields.find(name);
  if (found == fields.end()) return std::nullopt;
  const std::string& text = found->second;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

class ServerExchange final : public Exchange {
 public:
  ServerExchange(std::uint64_t token, std::size_t worker, HttpConnection connection, FloatArray parameters,
                 FloatArray gradient)
      : token_(token),
        worker_(worker),
        connection_(std::move(connection)),
        parameters_(std::move(parameters)),
        gradient_(std::move(gradient)) {}

  Result<std::span<const float>> current() override {
    const auto bytes = std::as_writable_bytes(parameters_.span());
    GRADFS_TRYV(connection_.send(HttpRequest{"GET", "/model", {}, 0}, {}));
    GRADFS_TRY(const HttpResponse response, connection_.receive_response());
    if (response.status != kOk || response.body_bytes != bytes.size()) {
      return Error(Errc::kIo, "GET /model: status " + std::to_string(response.status));
    }
    GRADFS_TRYV(connection_.receive_body(bytes));
    bytes_moved_ += bytes.size();
    return parameters_.span();
  }
  std::span<float> gradient() override { return gradient_.span(); }
  [[nodiscard]] std::uint64_t bytes_moved() const override { return bytes_moved_; }

  Result<PushOutcome> push(std::uint64_t step, double loss) override {
    const HttpFields fields = {{kRunField, std::to_string(token_)},
                               {kWorkerField, std::to_string(worker_)},
                               {kStepField, std::to_string(step)}};
    const HttpRequest request{"POST", "/gradient", fields, 0};
    GRADFS_TRYV(connection_.send(request, std::as_bytes(gradient_.span())));
    bytes_moved_ += gradient_.size() * sizeof(float);
    GRADFS_TRY(const HttpResponse response, connection_.receive_response());
    if (response.status == kOk) return PushOutcome::kCounted;
    if (response.status == kRefusedContent) return PushOutcome::kRefused;
    return Error(Errc::kIo, "POST /gradient: status " + std::to_string(response.status));
  }

 private:
  const std::uint64_t token_;
  const std::size_t worker_;
  HttpConnection connection_;
  FloatArray parameters_;
  FloatArray gradient_;
  std::uint64_t bytes_moved_ = 0;
};

class Server {
 public:
  Server(PeerModel& model, RunControl& control, std::unique_ptr<Updater> updater, std::size_t workers,
         std::uint64_t token)
      : model_(model), control_(control), updater_(std::move(updater)), token_(token), last_step_(workers) {}

  // Serves each connection in a thread of its own until all workers are gone; then ends what others have
  // open.
  Result<void> run(TcpListener& listener) {
    std::list<HttpConnection> connections;
    std::vector<std::jthread> threads;
    Result<void> outcome = ok();
    while (outcome && !all_gone()) {
      Result<TcpSocket> socket = listener.accept(kAcceptTick_ms);
      if (!socket && socket.error().code == Errc::kTimeout) continue;
      if (!socket) outcome = socket.error();
      if (!socket || connections.size() >= last_step_.size() + kStrangersMax) continue;
      HttpConnection& connection = connections.emplace_back(std::move(socket.value()));
      threads.emplace_back([this, &connection] {
        while (answer(connection)) {
        }
        connection.shut_down();
      });
    }
    for (const HttpConnection& connection : connections) connection.shut_down();
    return outcome;
  }

 private:
  [[nodiscard]] bool all_gone() const {
    for (std::size_t worker = 0; worker < last_step_.size(); ++worker) {
      if (!control_.gone[worker].load(std::memory_order_acquire)) return false;
    }
    return true;
  }

  // One request; false when the connection is at its end.
  bool answer(HttpConnection& connection) {
    const Result<HttpRequest> received = connection.receive_request();
    if (!received) return false;
    const HttpRequest& request = received.value();
    if (request.method == "GET" && request.target == "/model") return send_model(connection);
    if (request.method == "POST" && request.target == "/gradient") return take_gradient(connection, request);
    return request.body_bytes == 0 && connection.send(HttpResponse{kNotFound, {}, 0}, {}).has_value();
  }

  bool send_model(HttpConnection& connection) {
    return connection.send(HttpResponse{}, std::as_bytes(model_.parameters.span())).has_value();
  }

  bool take_gradient(HttpConnection& connection, const HttpRequest& request) {
    const std::optional<std::uint64_t> worker = number_in(request.fields, kWorkerField);
    const std::optional<std::uint64_t> step = number_in(request.fields, kStepField);
    const std::uint64_t bytes = model_.layout.parameters() * sizeof(float);
    const bool is_ours = number_in(request.fields, kRunField) == token_;
    if (!is_ours || !worker || !step || *worker >= last_step_.size() || request.body_bytes != bytes) {
      // What follows of its body is not read: the connection ends with this answer.
      (void)connection.send(HttpResponse{kBadRequest, {}, 0}, {});
      return false;
    }
    Result<FloatArray> gradient = take_buffer();
    if (!gradient || !connection.receive_body(std::as_writable_bytes(gradient.value().span()))) return false;
    const unsigned status = apply(*worker, *step, gradient.value().span());
    give_buffer(std::move(gradient.value()));
    return connection.send(HttpResponse{status, {}, 0}, {}).has_value();
  }

  unsigned apply(std::size_t worker, std::uint64_t step, std::span<const float> gradient) {
    const std::lock_guard lock(update_);
    if (step <= last_step_[worker]) return kOk;
    if (!updater_->is_finite(gradient)) return kRefusedContent;
    const float* const data = gradient.data();
    updater_->apply(model_.parameters.span(), std::span(&data, 1), 1.0F);
    last_step_[worker] = step;
    control_.version.fetch_add(1);
    return kOk;
  }

  // Buffers for bodies are kept: there are never more than connections.
  Result<FloatArray> take_buffer() {
    const std::lock_guard lock(buffers_mutex_);
    if (buffers_.empty()) return FloatArray::make_private(model_.layout.parameters());
    FloatArray buffer = std::move(buffers_.back());
    buffers_.pop_back();
    return buffer;
  }
  void give_buffer(FloatArray buffer) {
    const std::lock_guard lock(buffers_mutex_);
    buffers_.push_back(std::move(buffer));
  }

  PeerModel& model_;
  RunControl& control_;
  std::mutex update_;  // of the model, the updater and last_step_
  std::unique_ptr<Updater> updater_;
  const std::uint64_t token_;
  std::vector<std::uint64_t> last_step_;  // of each worker that has counted
  std::mutex buffers_mutex_;
  std::vector<FloatArray> buffers_;
};

class Paramserver final : public SocketPeer {
 public:
  using SocketPeer::SocketPeer;
  [[nodiscard]] std::string name() const override { return "paramserver"; }
  [[nodiscard]] bool is_asynchronous() const override { return true; }
  [[nodiscard]] std::string service() const override { return "server"; }

  Result<void> serve() override {
    GRADFS_TRY(std::unique_ptr<Updater> updater,
               Updater::make(model_.layout, model_.config, update_threads(1)));
    Server server(model_, *options_.control, std::move(updater), options_.workers, token());
    return server.run(listener());
  }

  Result<std::unique_ptr<Exchange>> make_exchange(std::size_t worker) override {
    GRADFS_TRY(TcpSocket socket, TcpSocket::connect(listener().port()));
    GRADFS_TRY(FloatArray parameters, FloatArray::make_private(this->parameters()));
    GRADFS_TRY(FloatArray gradient, FloatArray::make_private(this->parameters()));
    return std::unique_ptr<Exchange>(std::make_unique<ServerExchange>(
        token(), worker, HttpConnection(std::move(socket)), std::move(parameters), std::move(gradient)));
  }
};

}  // namespace

Result<std::unique_ptr<Architecture>> open_paramserver(const ExchangeOptions& options) {
  GRADFS_TRY(PeerModel model, open_peer_model(options));
  return std::unique_ptr<Architecture>(std::make_unique<Paramserver>(options, std::move(model)));
}

}  // namespace gradfs::trainer
