#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "tools/fsctl/commands.h"
#include "tools/fsctl/model_status.h"
#include "tools/fsctl/output.h"
#include "tools/fsctl/session.h"

namespace gradfs::fsctl {
namespace {

Task<Result<void>> list_bindings(Filesystem& filesystem, bool json) {
  GRADFS_CO_TRY(auto listed, co_await filesystem.call<rpc::ListBindings>(wire::Empty(), "coproc list"));
  nlohmann::json out = nlohmann::json::array();
  std::vector<std::vector<std::string>> rows{
      {"PATH", "COPROCESSOR", "SEQUENCE", "APPLIED", "PENDING", "REFUSED", "STATE"}};
  for (const wire::BindingState& binding : listed.bindings()) {
    const std::uint64_t sequence =
        binding.next_sequence() - std::min<std::uint64_t>(binding.next_sequence(), 1);
    const auto status = co_await model_status(filesystem, binding);
    const std::uint64_t applied = status ? status.value().sequence() : binding.retired();
    const std::uint64_t pending = sequence - std::min(sequence, applied);
    const std::string state = status ? model_state(status.value()) : line_of(status.error());
    out.push_back({{"path", binding.path()},
                   {"binding", format_id(binding.binding())},
                   {"coprocessor", binding.coprocessor()},
                   {"sequence", sequence},
                   {"applied", applied},
                   {"retired", binding.retired()},
                   {"pending", pending},
                   {"refused", binding.refused()},
                   {"state", state}});
    rows.push_back({binding.path(), binding.coprocessor(), std::to_string(sequence), std::to_string(applied),
                    std::to_string(pending), std::to_string(binding.refused()), state});
  }
  if (json) {
    std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else if (listed.bindings().empty()) {
    std::printf("nothing is bound; 'fsctl model create' binds descent to a new model\n");
  } else {
    print_table(rows);
  }
  co_return ok();
}

}  // namespace

void add_coproc_commands(CLI::App& app, Action& action) {
  auto* group = app.add_subcommand("coproc", "coprocessors: what is bound where");
  group->require_subcommand(1);
  auto json = std::make_shared<bool>(false);
  auto* list = group->add_subcommand("list", "bindings, how far they are, and what they refused");
  list->add_flag("--json", *json, "as JSON");
  list->callback([json, &action] {
    action = [json] {
      return run_command([json](Filesystem& filesystem) { return list_bindings(filesystem, *json); });
    };
  });
}

}  // namespace gradfs::fsctl
