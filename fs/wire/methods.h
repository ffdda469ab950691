// The methods of methods.def as types: rpc::Lookup::Request, ::Response, ::kNumber, ::kName.
#pragma once

#include <cstdint>
#include <string_view>

#include "fs/wire/gradfs.pb.h"

namespace gradfs::rpc {

#define GRADFS_METHOD(number, name, request, response) \
  struct name {                                        \
    using Request = wire::request;                     \
    using Response = wire::response;                   \
    static constexpr std::uint16_t kNumber = number;   \
    static constexpr std::string_view kName = #name;   \
  };
#include "fs/wire/methods.def"
#undef GRADFS_METHOD

// The name for logs; "?" for a number that this build does not know.
constexpr std::string_view method_name(std::uint16_t number) {
  switch (number) {
#define GRADFS_METHOD(n, name, request, response) \
  case n:                                         \
    return #name;
#include "fs/wire/methods.def"
#undef GRADFS_METHOD
    default:
      return "?";
  }
}

}  // namespace gradfs::rpc
