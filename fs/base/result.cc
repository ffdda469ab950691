#include "fs/base/result.h"

#include <cerrno>
#include <cstring>

namespace gradfs {

int to_errno(Errc code) noexcept {
  switch (code) {
#define GRADFS_ERRC(name, value, errno_value, text) \
  case Errc::name:                                  \
    return errno_value;
#include "fs/base/errc.def"
#undef GRADFS_ERRC
  }
  return EIO;
}

std::string_view to_text(Errc code) noexcept {
  switch (code) {
#define GRADFS_ERRC(name, value, errno_value, text) \
  case Errc::name:                                  \
    return text;
#include "fs/base/errc.def"
#undef GRADFS_ERRC
  }
  return "unknown error";
}

Errc from_errno(int error_number) noexcept {
  if (error_number == 0) return Errc::kOk;
  if (error_number == EIO) return Errc::kIo;
  if (error_number == EINTR) return Errc::kInterrupted;
#define GRADFS_ERRC(name, value, errno_value, text) \
  if (error_number == (errno_value)) return Errc::name;
#include "fs/base/errc.def"
#undef GRADFS_ERRC
  return Errc::kIo;
}

Errc from_wire(std::uint16_t value) noexcept {
  switch (value) {
#define GRADFS_ERRC(name, wire, errno_value, text) \
  case wire:                                       \
    return Errc::name;
#include "fs/base/errc.def"
#undef GRADFS_ERRC
    default:
      return Errc::kIo;
  }
}

std::string Error::message() const {
  if (detail.empty()) return std::string(to_text(code));
  return std::string(to_text(code)) + ": " + detail;
}

Error errno_error(std::string_view what) { return errno_error(what, errno); }

Error errno_error(std::string_view what, int error_number) {
  return {from_errno(error_number), std::string(what) + ": " + std::strerror(error_number)};
}

}  // namespace gradfs
