#include "tools/fsctl/model_create.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <memory>

#include "coproc/descent/config.h"
#include "tools/fsctl/model_source.h"
#include "tools/fsctl/output.h"
#include "tools/fsctl/session.h"

namespace gradfs::fsctl {
namespace {

constexpr std::int64_t kBindTimeout_ns =
    120 * kSecond_ns;                                // the state of a large model is allocated and cleared
constexpr std::uint64_t kProgressBytes = 256 << 20;  // above this a terminal sees how far it is
constexpr std::size_t kHiddenNameMax = 200;

struct Plan {
  std::string shown_path;
  std::unique_ptr<ModelSource> source;
  std::string config_text;  // empty: plain
};

Result<std::string> make_config(const CreateArguments& arguments) {
  const auto optimizer = optimizer_from_text(arguments.optimizer);
  if (!optimizer) {
    return Error(Errc::kInvalid, "--optimizer " + arguments.optimizer + ": there is " + optimizer_names());
  }
  DescentConfig config = default_config(*optimizer);
  if (arguments.lr) config.lr = *arguments.lr;
  if (!std::isfinite(config.lr) || config.lr < 0)
    return Error(Errc::kInvalid, "--lr must be a finite number of at least 0");
  std::string text = render_config(config);
  GRADFS_TRYV(parse_config(text));
  return text;
}

Result<std::unique_ptr<ModelSource>> make_source(const CreateArguments& arguments) {
  if (!arguments.from.empty()) return file_source(arguments.from);
  GRADFS_TRY(const auto widths, parse_layers(arguments.layers));
  return layers_source(widths, arguments.seed);
}

void show_progress(const ModelSource& source, std::size_t written) {
  if (source.file_bytes() < kProgressBytes || ::isatty(STDERR_FILENO) == 0) return;
  const std::uint64_t bytes = source.tensors()[written].end;
  std::fprintf(stderr, "\rwriting %3.0f %%%s",
               100.0 * static_cast<double>(bytes) / (4.0 * static_cast<double>(source.parameters())),
               written + 1 == source.tensors().size() ? "\r\033[K" : "");
}

// model.safetensors in the directory; the worker that holds it.
Task<Result<wire::WorkerAddress>> write_model(Filesystem& filesystem, InodeId directory,
                                              const ModelSource& source,
                                              std::shared_ptr<const bool> interrupted) {
  GRADFS_CO_TRY(NewFile file,
                co_await filesystem.create_file(directory, "model.safetensors", source.file_bytes()));
  GRADFS_CO_TRYV(write_fully_at(file.image.get(), std::as_bytes(std::span(source.header())), 0));
  for (std::size_t index = 0; index < source.tensors().size(); ++index) {
    GRADFS_CO_TRYV(source.write(index, file.image.get()));
    show_progress(source, index);
    co_await filesystem.executor().clock().sleep_ns(0);  // lets a signal in
    if (*interrupted) co_return Error(Errc::kInterrupted, "interrupted: nothing was made");
    GRADFS_CO_TRYV(co_await filesystem.keep_alive());
  }
  wire::WorkerAddress home = file.home;
  GRADFS_CO_TRYV(co_await filesystem.close_file(std::move(file)));
  co_return home;
}

Task<Result<void>> bind_descent(Filesystem& filesystem, InodeId directory, wire::WorkerAddress home,
                                std::string config_text) {
  GRADFS_CO_TRY(RpcClient * worker, co_await filesystem.worker(home));
  wire::BindRequest request;
  request.set_directory(directory.value);
  request.set_coprocessor("descent");
  request.set_config_text(config_text);
  const CallOptions options{.timeout_ns = kBindTimeout_ns};
  auto bound = co_await worker->call<rpc::Bind>(std::move(request), options);
  if (!bound) co_return about("binding descent", bound.error());
  co_return ok();
}

// Everything that happens in the hidden directory, up to its renaming.
Task<Result<void>> build(Filesystem& filesystem, InodeId parent, std::string hidden, std::string name,
                         const Plan& plan, std::shared_ptr<const bool> interrupted) {
  GRADFS_CO_TRY(wire::Attr made, co_await filesystem.make_directory(parent, hidden));
  const InodeId directory{made.inode()};
  GRADFS_CO_TRY(wire::WorkerAddress home,
                co_await write_model(filesystem, directory, *plan.source, interrupted));
  if (!plan.config_text.empty()) {
    GRADFS_CO_TRYV(co_await bind_descent(filesystem, directory, std::move(home), plan.config_text));
  }
  co_return co_await filesystem.rename(parent, hidden, parent, name, true);
}

Error exists_error(const std::string& path) {
  return {Errc::kExists, path + " exists already: choose another name, or remove it first"};
}

Task<Result<void>> create(Filesystem& filesystem, std::string path, const Plan& plan) {
  if (path == "/") co_return exists_error(plan.shown_path);
  auto existing = co_await filesystem.resolve(path, false);
  if (existing) co_return exists_error(plan.shown_path);
  if (existing.error().code != Errc::kNotFound) co_return std::move(existing).error();

  const auto interrupted = std::make_shared<bool>(false);
  filesystem.executor().on_termination([interrupted] { *interrupted = true; });
  const std::size_t slash = path.rfind('/');
  const std::string name = path.substr(slash + 1);
  const std::string parent_path = path.substr(0, slash + 1);
  GRADFS_CO_TRY(Node parent, co_await filesystem.make_directories(parent_path));
  const std::string hidden =
      "." + name.substr(0, kHiddenNameMax) + ".creating-" + format_id(SystemRandom().next_u64()).substr(0, 8);
  auto built = co_await build(filesystem, parent.inode(), hidden, name, plan, interrupted);
  if (!built) {
    // Best effort: the error that counts is the first one, and a hidden directory harms nobody.
    (void)co_await filesystem.remove_tree(parent.inode(), hidden);
    if (built.error().code == Errc::kExists) co_return exists_error(plan.shown_path);
    co_return Error(built.error().code, "cannot make " + plan.shown_path + ": " + built.error().detail);
  }
  co_return ok();
}

}  // namespace

int create_model(const CreateArguments& arguments) {
  if (arguments.layers.empty() == arguments.from.empty()) {
    return fail_usage("give one of --layers 784,1024,10 and --from FILE.safetensors");
  }
  Plan plan;
  plan.shown_path = arguments.path;
  if (!arguments.plain) {
    auto config = make_config(arguments);
    if (!config) return fail_usage(config.error().detail);
    plan.config_text = std::move(config).value();
  }
  auto source = make_source(arguments);
  if (!source) return arguments.from.empty() ? fail_usage(source.error().detail) : fail(source.error());
  plan.source = std::move(source).value();

  const int status = run_path_command(arguments.path, [&](Filesystem& filesystem, std::string path) {
    return create(filesystem, std::move(path), plan);
  });
  if (status == 0) {
    std::printf("%s: %s parameters, %s\n", printable(arguments.path).c_str(),
                format_count(plan.source->parameters()).c_str(),
                arguments.plain ? "plain" : arguments.optimizer.c_str());
  }
  return status;
}

}  // namespace gradfs::fsctl
