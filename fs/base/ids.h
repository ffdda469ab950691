// Strong types for ids, so that an inode is never passed for a binding.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace gradfs {

template <class Tag>
struct Id {
  std::uint64_t value = 0;
  constexpr Id() = default;
  constexpr explicit Id(std::uint64_t v) : value(v) {}
  constexpr explicit operator bool() const { return value != 0; }
  constexpr auto operator<=>(const Id&) const = default;
};

using InodeId = Id<struct InodeTag>;      // never reused; 1 is the root
using BindingId = Id<struct BindingTag>;  // never reused
using SessionId = Id<struct SessionTag>;  // one life of a mount
using WorkerId = Id<struct WorkerTag>;
using Sequence = Id<struct SequenceTag>;  // of one binding; the first number is 1

inline constexpr InodeId kRootInode{1};

}  // namespace gradfs

template <class Tag>
struct std::hash<gradfs::Id<Tag>> {
  std::size_t operator()(gradfs::Id<Tag> id) const noexcept { return std::hash<std::uint64_t>{}(id.value); }
};
