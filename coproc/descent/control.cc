#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "coproc/descent/control.h"
#include "coproc/descent/engine.h"

namespace gradfs {
namespace {

std::span<const std::byte> bytes_of(const ControlHeader& header) {
  return std::as_bytes(std::span(&header, 1));
}

}  // namespace

Result<void> format_control(int fd, const ModelLayout& model, const ControlOptions& options) {
  if (options.thread_slots < 1 || options.thread_slots > kControlSlotsMax) {
    return Error(Errc::kInvalid, "a control file has 1 to 256 slots");
  }
  const ControlSections sections =
      control_sections(model.stripes().size(), model.tensors().size(), options.thread_slots);
  if (::ftruncate(fd, 0) != 0) return errno_error("ftruncate");
  GRADFS_TRYV(preallocate(fd, sections.file_bytes));
  ControlHeader header{};
  header.format_version = kControlVersion;
  header.slot_count = options.thread_slots;
  header.layout_hash = model.hash();
  header.tensor_count = model.tensors().size();
  header.stripe_count = model.stripes().size();
  header.stripe_parameters = kStripeParameters;
  header.numbers_offset = sections.numbers;
  header.steps_offset = sections.steps;
  header.ratios_offset = sections.ratios;
  header.slots_offset = sections.slots;
  header.slot_bytes = kSlotBytes;
  header.file_bytes = sections.file_bytes;
  header.watermark = options.watermark.value;
  header.version[0] = header.version[1] = options.version;
  header.optimizer[0] = header.optimizer[1] = static_cast<std::uint32_t>(options.optimizer);
  const std::vector<std::uint64_t> numbers(model.stripes().size(), options.watermark.value);
  GRADFS_TRYV(write_fully_at(fd, std::as_bytes(std::span(numbers)), sections.numbers));
  GRADFS_TRYV(write_fully_at(fd, bytes_of(header), 0));
  header.magic = kControlMagic;
  return write_fully_at(fd, bytes_of(header).first(sizeof header.magic), 0);
}

Result<ControlState> read_control(int fd) {
  ControlHeader header{};
  struct stat status{};
  if (::fstat(fd, &status) != 0) return errno_error("fstat");
  GRADFS_TRYV(read_fully_at(fd, std::as_writable_bytes(std::span(&header, 1)), 0));
  if (header.magic != kControlMagic) return Error(Errc::kCorrupt, "not a control file");
  if (header.format_version != kControlVersion) {
    return Error(Errc::kCorrupt, "the control file has format " + std::to_string(header.format_version) +
                                     ", this program knows " + std::to_string(kControlVersion));
  }
  if (header.file_bytes != static_cast<std::uint64_t>(status.st_size)) {
    return Error(Errc::kCorrupt, "the control file has the wrong size");
  }
  const std::uint64_t parity = header.watermark & 1;
  const auto optimizer = optimizer_from_value(header.optimizer[parity]);
  if (!optimizer) return Error(Errc::kCorrupt, "the control file names an unknown optimizer");
  return ControlState{Sequence(header.watermark), header.version[parity], *optimizer};
}

}  // namespace gradfs
