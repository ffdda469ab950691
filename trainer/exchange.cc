#include "trainer/exchange.h"

#include "trainer/coprocessor.h"

namespace gradfs::trainer {
namespace {

using Opener = Result<std::unique_ptr<Architecture>> (*)(const ExchangeOptions&);

struct Entry {
  const char* name;
  Opener open;
};

constexpr Entry kArchitectures[] = {
    {"coprocessor", open_coprocessor},
};

}  // namespace

Result<std::unique_ptr<Architecture>> make_architecture(const std::string& name,
                                                        const ExchangeOptions& options) {
  std::string names;
  for (const Entry& entry : kArchitectures) {
    if (name == entry.name) return entry.open(options);
    names += (names.empty() ? "" : ", ") + std::string(entry.name);
  }
  return Error(Errc::kInvalid, "no architecture '" + name + "'; there is: " + names);
}

}  // namespace gradfs::trainer
