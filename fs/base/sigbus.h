// Reading maps of files that others may truncate: a load beyond the end is a SIGBUS, which would end the
// process.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>

namespace gradfs {

// Runs body on this thread; false if one of its accesses to `range` hit SIGBUS. body is left at that access
// as by longjmp: no destructor in it runs, so it must own nothing and hold no lock. A SIGBUS outside the
// range ends the process as ever. Guards nest. The first call installs the process's handler for SIGBUS.
bool run_guarded(std::span<const std::byte> range, void (*body)(void*), void* context);

template <class Body>
bool run_guarded(std::span<const std::byte> range, Body&& body) {
  using Function = std::remove_reference_t<Body>;
  return run_guarded(
      range, [](void* context) { (*static_cast<Function*>(context))(); },
      const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

}  // namespace gradfs
