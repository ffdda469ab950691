#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "coproc/descent/optimizers.h"
#include "coproc/descent/safetensors.h"
#include "tools/fsctl/commands.h"
#include "tools/fsctl/model_create.h"
#include "tools/fsctl/model_status.h"
#include "tools/fsctl/output.h"
#include "tools/fsctl/session.h"

namespace gradfs::fsctl {
namespace {

constexpr std::int64_t kStatusTimeout_ns = 5 * kSecond_ns;

struct InfoArguments {
  std::string path;
  bool json = false;
};

nlohmann::json parse_status(const wire::ModelStatusResponse& status) {
  return nlohmann::json::parse(status.json(), nullptr, false);
}

Task<Result<void>> list_models(Filesystem& filesystem, bool json) {
  GRADFS_CO_TRY(auto listed, co_await filesystem.call<rpc::ListBindings>(wire::Empty(), "model list"));
  nlohmann::json out = nlohmann::json::array();
  std::vector<std::vector<std::string>> rows{{"PATH", "VERSION", "SEQUENCE", "OPTIMIZER", "STATE"}};
  for (const wire::BindingState& binding : listed.bindings()) {
    const auto status = co_await model_status(filesystem, binding);
    nlohmann::json entry = {{"path", binding.path()},
                            {"state", status ? model_state(status.value()) : line_of(status.error())}};
    if (status) {
      entry["version"] = status.value().version();
      entry["sequence"] = status.value().sequence();
      entry["optimizer"] = status.value().optimizer();
      rows.push_back({binding.path(), std::to_string(status.value().version()),
                      std::to_string(status.value().sequence()), status.value().optimizer(),
                      entry["state"].get<std::string>()});
    } else {
      rows.push_back({binding.path(), "?", "?", "?", line_of(status.error())});
    }
    out.push_back(std::move(entry));
  }
  if (json) {
    std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else if (listed.bindings().empty()) {
    std::printf("there is no model; 'fsctl model create' makes one\n");
  } else {
    print_table(rows);
  }
  co_return ok();
}

// The file with the parameters: PATH itself, or model.safetensors in it.
Task<Result<Node>> find_parameters(Filesystem& filesystem, std::string path) {
  GRADFS_CO_TRY(Node node, co_await filesystem.resolve(path));
  if (node.attr.type() != wire::DIRECTORY) co_return node;
  auto inside = co_await filesystem.resolve(path + "/model.safetensors");
  if (!inside && inside.error().code == Errc::kNotFound) {
    co_return Error(Errc::kNotFound,
                    path + " is no model: it has no model.safetensors; 'fsctl model create' makes one");
  }
  co_return inside;
}

struct ModelInfo {
  std::string path;
  SafetensorsHeader header;
  std::optional<wire::ModelStatusResponse> status;  // nullopt: nothing is bound
};

Task<Result<ModelInfo>> read_info(Filesystem& filesystem, std::string path) {
  GRADFS_CO_TRY(Node parameters, co_await find_parameters(filesystem, path));
  ModelInfo info;
  info.path = path;
  GRADFS_CO_TRY(UniqueFd image, co_await filesystem.open_image(parameters.attr));
  auto header = read_safetensors(image.get());
  if (!header) co_return Error(header.error().code, path + ": " + header.error().detail);
  info.header = std::move(header).value();
  if (parameters.attr.binding() != 0) {
    wire::BindingRequest request;
    request.set_binding(parameters.attr.binding());
    GRADFS_CO_TRY(auto bound, co_await filesystem.call<rpc::GetBinding>(std::move(request), path));
    GRADFS_CO_TRY(info.status, co_await model_status(filesystem, bound.binding()));
  }
  co_return info;
}

std::uint64_t count_parameters(const SafetensorsHeader& header) {
  std::uint64_t count = 0;
  for (const TensorEntry& tensor : header.tensors) count += tensor.count();
  return count;
}

void print_json(const ModelInfo& info) {
  nlohmann::json out = {
      {"path", info.path}, {"parameters", count_parameters(info.header)}, {"bound", info.status.has_value()}};
  out["tensors"] = nlohmann::json::array();
  for (const TensorEntry& tensor : info.header.tensors) {
    out["tensors"].push_back(
        {{"name", tensor.name}, {"dtype", to_text(tensor.dtype)}, {"shape", tensor.shape}});
  }
  if (info.status) {
    out["version"] = info.status->version();
    out["sequence"] = info.status->sequence();
    out["optimizer"] = info.status->optimizer();
    out["status"] = parse_status(*info.status);
  }
  std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

void print_text(const ModelInfo& info) {
  std::vector<std::vector<std::string>> rows{{"path", info.path},
                                             {"parameters", format_count(count_parameters(info.header))}};
  if (info.status) {
    rows.push_back({"version", std::to_string(info.status->version())});
    rows.push_back({"sequence", std::to_string(info.status->sequence())});
    rows.push_back({"optimizer", info.status->optimizer()});
    const nlohmann::json status = parse_status(*info.status);
    for (const auto& [key, value] : status.items()) {
      const bool is_shown =
          key == "version" || key == "sequence" || key == "optimizer" || key == "parameters";
      if (is_shown || value.is_null() || value.empty() || value == "") continue;
      rows.push_back({key, value.is_string() ? value.get<std::string>() : value.dump()});
    }
  } else {
    rows.push_back({"optimizer", "none: nothing is bound"});
  }
  for (const TensorEntry& tensor : info.header.tensors) {
    rows.push_back(
        {"tensor", tensor.name + " " + std::string(to_text(tensor.dtype)) + " " + to_text(tensor.shape)});
  }
  print_table(rows);
}

Task<Result<void>> show_model(Filesystem& filesystem, std::string path, bool json) {
  GRADFS_CO_TRY(ModelInfo info, co_await read_info(filesystem, path));
  if (json) {
    print_json(info);
  } else {
    print_text(info);
  }
  co_return ok();
}

void add_create(CLI::App& group, Action& action) {
  auto arguments = std::make_shared<CreateArguments>();
  auto* create = group.add_subcommand("create", "make a model directory and let descent work on it");
  create->add_option("PATH", arguments->path, "where, in gradfs or on a mount; parents are made")->required();
  auto* layers = create->add_option("--layers", arguments->layers,
                                    "widths of a fully connected network, such as 784,1024,10");
  create->add_option("--from", arguments->from, "safetensors file with the first parameters, all F32")
      ->excludes(layers);
  create->add_option("--optimizer", arguments->optimizer, optimizer_names())->capture_default_str();
  create->add_option("--lr", arguments->lr, "learning rate (the optimizer's default)");
  create->add_option("--seed", arguments->seed, "of the first parameters, with --layers")
      ->capture_default_str();
  create->add_flag("--plain", arguments->plain, "only the file, with nothing bound to it");
  create->callback([arguments, &action] { action = [arguments] { return create_model(*arguments); }; });
}

}  // namespace

Task<Result<wire::ModelStatusResponse>> model_status(Filesystem& filesystem,
                                                     const wire::BindingState& binding) {
  const std::uint64_t number = binding.binding();
  GRADFS_CO_TRY(wire::Attr model, co_await filesystem.attributes(InodeId{binding.model()}));
  GRADFS_CO_TRY(wire::WorkerAddress address, co_await filesystem.worker_address(WorkerId{model.worker()}));
  GRADFS_CO_TRY(RpcClient * worker, co_await filesystem.worker(address));
  wire::ModelStatusRequest request;
  request.set_binding(number);
  const CallOptions options{.timeout_ns = kStatusTimeout_ns};
  auto status = co_await worker->call<rpc::ModelStatus>(std::move(request), options);
  if (!status) co_return about("the worker of the model", status.error());
  co_return status;
}

std::string model_state(const wire::ModelStatusResponse& status) {
  const nlohmann::json json = parse_status(status);
  return json.is_object() ? json.value("state", "running") : "running";
}

void add_model_commands(CLI::App& app, Action& action) {
  auto* group = app.add_subcommand("model", "model directories");
  group->require_subcommand(1);
  add_create(*group, action);
  auto arguments = std::make_shared<InfoArguments>();
  auto* list = group->add_subcommand("list", "all models");
  list->add_flag("--json", arguments->json, "as JSON");
  list->callback([arguments, &action] {
    action = [arguments] {
      return run_command([&](Filesystem& filesystem) { return list_models(filesystem, arguments->json); });
    };
  });
  auto* info = group->add_subcommand("info", "version, optimizer, tensors and status of a model");
  info->add_option("PATH", arguments->path, "the model's directory, in gradfs or on a mount")->required();
  info->add_flag("--json", arguments->json, "as JSON");
  info->callback([arguments, &action] {
    action = [arguments] {
      return run_path_command(arguments->path, [&](Filesystem& filesystem, std::string path) {
        return show_model(filesystem, std::move(path), arguments->json);
      });
    };
  });
}

}  // namespace gradfs::fsctl
