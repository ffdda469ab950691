// The control file: the shared-memory protocol between an engine and its successor after a crash. Producer
// and consumer are Engine and format_control (engine.h) of one host; little-endian, fixed-width fields.
//
//   file    = header (4096) numbers steps ratios slots
//   numbers = u64 for each stripe: the last number that it took
//   steps   = u64 for each tensor, twice: updates taken, as of an even and as of an odd number
//   ratios  = f64 for each tensor, twice: trust ratios of an even and of an odd number
//   slots   = slot_count times: slot header (4096), parameters, state 0, state 1
//             (each kStripeParameters floats)
//
// Each section begins on a multiple of 4096.
//
// What changes with a number (version, optimizer, steps) exists twice, chosen by the parity of the watermark:
// number n reads copy (n - 1) & 1, writes copy n & 1, and counts once the watermark says n. So a number that
// was interrupted finds what it began with.
//
// A rule with norms (LAMB) needs those of a whole tensor before its first stripe may change, and cannot
// compute them again once one has. So number n first only reads; then ratios[n & 1] is written, and
// ratios_number[n & 1] = n says that it is complete. Who finds n there, goes on with these ratios; who does
// not, knows that no stripe has taken n. Other rules leave ratios and ratios_number alone.
//
// A stripe takes number n as: its new values into a slot; slot.state = full; the values into place;
// numbers[stripe] = n; slot.state = empty. After a crash a full slot whose stripe has a number below
// slot.last is put into place again. Against a killed process program order is enough, so these are release
// stores.
#pragma once

#include <cstddef>
#include <cstdint>

#include "coproc/descent/layout.h"

namespace gradfs {

inline constexpr std::uint64_t kControlMagic = 0x314C525443534647;  // "GFSCTRL1"
inline constexpr std::uint32_t kControlVersion = 3;
inline constexpr std::uint32_t kControlSlotsMax = 256;
inline constexpr std::uint32_t kControlStates = 2;  // the most that a built-in rule has
inline constexpr std::uint64_t kControlPage = 4096;

struct ControlHeader {
  std::uint64_t magic;  // written last
  std::uint32_t format_version;
  std::uint32_t slot_count;
  std::uint64_t layout_hash;  // ModelLayout::hash
  std::uint64_t tensor_count;
  std::uint64_t stripe_count;
  std::uint64_t stripe_parameters;  // kStripeParameters
  std::uint64_t numbers_offset;
  std::uint64_t steps_offset;
  std::uint64_t slots_offset;
  std::uint64_t slot_bytes;
  std::uint64_t file_bytes;
  std::uint64_t ratios_offset;
  std::uint8_t reserved0[32];
  std::uint64_t watermark;         // atomic: the last number that is complete
  std::uint64_t version[2];        // by parity of the watermark
  std::uint32_t optimizer[2];      // by parity of the watermark
  std::uint64_t ratios_number[2];  // atomic, by parity: the number whose trust ratios are complete; 0: none
  std::uint8_t reserved1[16];
};
static_assert(sizeof(ControlHeader) == 192);
static_assert(offsetof(ControlHeader, layout_hash) == 16);
static_assert(offsetof(ControlHeader, numbers_offset) == 48);
static_assert(offsetof(ControlHeader, file_bytes) == 80);
static_assert(offsetof(ControlHeader, watermark) == 128);
static_assert(offsetof(ControlHeader, version) == 136);
static_assert(offsetof(ControlHeader, optimizer) == 152);
static_assert(offsetof(ControlHeader, ratios_offset) == 88);
static_assert(offsetof(ControlHeader, ratios_number) == 160);

enum class SlotState : std::uint32_t { kEmpty = 0, kFull = 1 };

struct SlotHeader {
  std::uint32_t state;   // atomic: SlotState
  std::uint32_t arrays;  // a bit for each array that has new values: 0 parameters, 1 state 0, ...
  std::uint64_t stripe;
  std::uint64_t first;  // numbers that the new values contain
  std::uint64_t last;
};
static_assert(sizeof(SlotHeader) == 32);
static_assert(offsetof(SlotHeader, stripe) == 8);
static_assert(offsetof(SlotHeader, last) == 24);

inline constexpr std::uint64_t kSlotBytes =
    kControlPage + (1 + kControlStates) * kStripeParameters * sizeof(float);
static_assert(kSlotBytes % kControlPage == 0);

// Where the sections of a control file begin.
struct ControlSections {
  std::uint64_t numbers;
  std::uint64_t steps;
  std::uint64_t ratios;
  std::uint64_t slots;
  std::uint64_t file_bytes;
};
constexpr ControlSections control_sections(std::uint64_t stripes, std::uint64_t tensors,
                                           std::uint64_t slots) {
  const auto round_up = [](std::uint64_t bytes) {
    return (bytes + kControlPage - 1) / kControlPage * kControlPage;
  };
  ControlSections out{};
  out.numbers = kControlPage;
  out.steps = out.numbers + round_up(8 * stripes);
  out.ratios = out.steps + round_up(16 * tensors);
  out.slots = out.ratios + round_up(16 * tensors);
  out.file_bytes = out.slots + slots * kSlotBytes;
  return out;
}

}  // namespace gradfs
