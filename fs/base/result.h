// Result<T>: every call that can fail returns one. Boost.Outcome over the table in errc.def.
//
// An expected failure is a Result. A bug is GRADFS_CHECK (check.h). Exceptions exist only at the edges of
// third-party libraries and are turned into a Result there.
//
//   Result<int> parse(std::string_view text);
//   Result<void> caller() {
//     GRADFS_TRY(int value, parse("7"));     // declares value, or returns the error
//     GRADFS_TRYV(store(value));             // for Result<void>
//     return ok();
//   }
// In a coroutine that returns Task<Result<T>>: GRADFS_CO_TRY, GRADFS_CO_TRYV.
#pragma once

#include <boost/outcome/basic_result.hpp>
#include <boost/outcome/policy/all_narrow.hpp>
#include <boost/outcome/try.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace gradfs {

enum class Errc : std::uint16_t {
#define GRADFS_ERRC(name, value, errno_value, text) name = value,
#include "fs/base/errc.def"
#undef GRADFS_ERRC
};

// The errno that a system call on a mount returns for this code (0 for kOk).
int to_errno(Errc code) noexcept;
// The text of the code, without details. Never null.
std::string_view to_text(Errc code) noexcept;
// The code for an errno of the operating system; kIo where the table has no better one.
Errc from_errno(int error_number) noexcept;
// The code with this wire value; kIo for a value that this build does not know.
Errc from_wire(std::uint16_t value) noexcept;

struct Error {
  Errc code = Errc::kIo;
  std::string detail;  // one line for a person; may be empty

  Error() = default;
  Error(Errc c) : code(c) {}  // NOLINT(google-explicit-constructor): `return Errc::kNotFound;` reads well
  Error(Errc c, std::string d) : code(c), detail(std::move(d)) {}

  // "TEXT: DETAIL", or just one of them.
  [[nodiscard]] std::string message() const;
};

template <class T = void>
using Result = boost::outcome_v2::basic_result<T, Error, boost::outcome_v2::policy::all_narrow>;

inline auto ok() { return boost::outcome_v2::success(); }

// An Error from the calling thread's errno: "WHAT: strerror".
Error errno_error(std::string_view what);
Error errno_error(std::string_view what, int error_number);

}  // namespace gradfs

#define GRADFS_TRY(declaration, ...) BOOST_OUTCOME_TRY(declaration, __VA_ARGS__)
#define GRADFS_TRYV(...) BOOST_OUTCOME_TRYV(__VA_ARGS__)
#define GRADFS_CO_TRY(declaration, ...) BOOST_OUTCOME_CO_TRY(declaration, __VA_ARGS__)
#define GRADFS_CO_TRYV(...) BOOST_OUTCOME_CO_TRYV(__VA_ARGS__)
