#include "trainer/peers/architectures.h"

#include "trainer/coprocessor.h"
#include "trainer/peers/allreduce.h"
#include "trainer/peers/broadcast.h"
#include "trainer/peers/local.h"
#include "trainer/peers/paramserver.h"
#include "trainer/peers/storage.h"

namespace gradfs::trainer {
namespace {

using Opener = Result<std::unique_ptr<Architecture>> (*)(const ExchangeOptions&);

struct Entry {
  const char* name;
  Opener open;
};

constexpr Entry kArchitectures[] = {
    {"broadcast", open_broadcast},     {"storage", open_storage},     {"paramserver", open_paramserver},
    {"coprocessor", open_coprocessor}, {"allreduce", open_allreduce}, {"local", open_local},
};

}  // namespace

std::string architecture_names() {
  std::string names;
  for (const Entry& entry : kArchitectures) names += (names.empty() ? "" : ", ") + std::string(entry.name);
  return names;
}

Result<std::unique_ptr<Architecture>> make_architecture(const std::string& name,
                                                        const ExchangeOptions& options) {
  for (const Entry& entry : kArchitectures) {
    if (name == entry.name) return entry.open(options);
  }
  return Error(Errc::kInvalid, "no architecture '" + name + "'; there are " + architecture_names());
}

}  // namespace gradfs::trainer
