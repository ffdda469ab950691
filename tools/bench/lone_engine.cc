#include "tools/bench/lone_engine.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>

namespace gradfs::bench {
namespace {

constexpr std::size_t kBlock = 32;  // neighbouring stripes that a thread takes at a time, as the engine

Result<UniqueFd> make_file(const std::string& path, std::uint64_t bytes) {
  GRADFS_TRY(UniqueFd fd, open_file(path, O_RDWR | O_CREAT | O_EXCL));
  GRADFS_TRYV(preallocate(fd.get(), bytes));
  return fd;
}

Result<UniqueFd> copy_file(const std::string& from, const std::string& to, std::uint64_t bytes) {
  GRADFS_TRY(const UniqueFd source, open_file(from, O_RDONLY));
  GRADFS_TRY(UniqueFd target, make_file(to, bytes));
  std::vector<std::byte> buffer(1 << 20);
  for (std::uint64_t done = 0; done < bytes; done += buffer.size()) {
    const std::span<std::byte> part(buffer.data(), std::min<std::uint64_t>(buffer.size(), bytes - done));
    GRADFS_TRYV(read_fully_at(source.get(), part, done));
    GRADFS_TRYV(write_fully_at(target.get(), part, done));
  }
  return target;
}

Result<UniqueFd> make_control(const std::string& path, const ModelLayout& layout, std::size_t threads) {
  GRADFS_TRY(UniqueFd fd, open_file(path, O_RDWR | O_CREAT | O_EXCL));
  ControlOptions options;
  options.optimizer = Optimizer::kAdam;
  options.thread_slots = static_cast<std::uint32_t>(threads);
  GRADFS_TRYV(format_control(fd.get(), layout, options));
  return fd;
}

}  // namespace

Result<std::unique_ptr<LoneEngine>> LoneEngine::make(const std::string& directory,
                                                     const std::string& model_path,
                                                     const std::string& gradient_header) {
  const std::size_t threads = std::max(1U, std::thread::hardware_concurrency());
  std::unique_ptr<LoneEngine> out(new LoneEngine(threads));
  out->config_ = default_config(Optimizer::kAdam);
  GRADFS_TRY(const UniqueFd original, open_file(model_path, O_RDONLY));
  GRADFS_TRY(const ModelLayout layout, ModelLayout::read(original.get()));
  const std::uint64_t parameter_bytes = layout.parameters() * sizeof(float);

  EngineFiles files;
  GRADFS_TRY(files.model, copy_file(model_path, directory + "/model", layout.file_bytes()));
  GRADFS_TRY(out->model_, Mapping::map(files.model, layout.file_bytes(), false));
  GRADFS_TRY(const OptimizerLayout states, OptimizerLayout::make(layout, Optimizer::kAdam));
  GRADFS_TRY(files.optimizer, open_file(directory + "/optimizer", O_RDWR | O_CREAT | O_EXCL));
  GRADFS_TRYV(states.initialise(files.optimizer.get()));
  GRADFS_TRY(files.control, make_control(directory + "/control", layout, threads));
  GRADFS_TRY(out->engine_, Engine::open(std::move(files), out->pool_));

  out->gradient_start_ = gradient_header.size();
  GRADFS_TRY(out->gradient_fd_, make_file(directory + "/gradient", gradient_header.size() + parameter_bytes));
  GRADFS_TRY(out->gradient_file_,
             Mapping::map(out->gradient_fd_, gradient_header.size() + parameter_bytes, true));
  std::memcpy(out->gradient_file_.data(), gradient_header.data(), gradient_header.size());
  GRADFS_TRY(Gradient opened, open_gradient(out->engine_->layout(), out->gradient_fd_, out->pool_));
  out->gradient_ = std::make_unique<Gradient>(std::move(opened));

  GRADFS_TRY(const UniqueFd unprotected, make_file(directory + "/unprotected", 3 * parameter_bytes));
  GRADFS_TRY(out->unprotected_, Mapping::map(unprotected, 3 * parameter_bytes, true));
  return out;
}

Result<void> LoneEngine::apply() {
  return engine_->apply_gradient(Sequence(engine_->watermark().value + 1), config_, *gradient_);
}

Result<void> LoneEngine::validate() {
  GRADFS_TRY(const Gradient opened, open_gradient(engine_->layout(), gradient_fd_, pool_));
  if (opened.tensors_present() == 0) return Error(Errc::kCorrupt, "the gradient has no tensors");
  return ok();
}

Result<void> LoneEngine::apply_unprotected() {
  const gradfs_rule& rule = builtin_rule(Optimizer::kAdam);
  gradfs_hyper hyper{};
  hyper.size = sizeof hyper;
  hyper.step = ++unprotected_steps_;
  hyper.lr = config_.lr;
  hyper.beta1 = config_.beta1;
  hyper.beta2 = config_.beta2;
  hyper.eps = config_.eps;
  hyper.grad_scale = 1.0F;
  auto* parameters_begin = reinterpret_cast<float*>(unprotected_.data());
  const auto* gradient = reinterpret_cast<const float*>(gradient_data());
  const ModelLayout& layout = engine_->layout();
  const std::uint64_t count = layout.parameters();
  std::atomic<bool> failed{false};
  const std::size_t stripes = layout.stripes().size();
  const auto take = [&](const Stripe& stripe) {
    const std::uint64_t first = layout.tensors()[stripe.tensor].first_parameter + stripe.first;
    gradfs_span span{};
    span.size = sizeof span;
    span.n = stripe.count;
    span.param = parameters_begin + first;
    span.grad = gradient + first;
    span.state[0] = parameters_begin + count + first;
    span.state[1] = parameters_begin + 2 * count + first;
    if (rule.apply(&span, &hyper) != 0) failed = true;
  };
  pool_.parallel_for((stripes + kBlock - 1) / kBlock, [&](std::size_t block, std::size_t) {
    const std::size_t end = std::min(stripes, (block + 1) * kBlock);
    for (std::size_t i = block * kBlock; i < end; ++i) take(layout.stripes()[i]);
  });
  if (failed) return Error(Errc::kCorrupt, "the update rule failed");
  return ok();
}

}  // namespace gradfs::bench
