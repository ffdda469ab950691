// The keys of the master's rows. docs/metadata.md has the grammar; fs/meta/stored.proto the values.
//
// A key is a tag of one byte, then fixed-width big-endian numbers and texts, so that rows that belong
// together are neighbours and come in the order of their numbers. Only the last part of a key may have no
// length before it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fs/base/ids.h"

namespace gradfs::keys {

inline std::string number(std::uint64_t value) {
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i) out[static_cast<std::size_t>(i)] = static_cast<char>(value >> (56 - 8 * i));
  return out;
}

// Reads the number at `offset`; 0 where the text is too short.
inline std::uint64_t number_at(std::string_view key, std::size_t offset) {
  if (key.size() < offset + 8) return 0;
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) value = value << 8 | static_cast<unsigned char>(key[offset + i]);
  return value;
}

inline std::string slot(std::uint64_t value) {
  return {static_cast<char>(value >> 8), static_cast<char>(value)};
}
inline std::string text(std::string_view value) { return slot(value.size()) + std::string(value); }

// The end of the range of all keys that begin with `prefix`.
inline std::string after_prefix(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

template <class... Ids>
std::string join(char tag, Ids... ids) {
  return (std::string(1, tag) + ... + number(ids));
}

// How many of a kind are kept.
inline constexpr std::uint64_t kAnswersKept = 512;    // of an RPC client
inline constexpr std::uint64_t kOutcomesKept = 4096;  // of a session
inline constexpr std::uint64_t kStepsKept = 4096;     // of a worker name in a run

inline std::string header() { return "H"; }
inline std::string inode(std::uint64_t id) { return join('I', id); }
inline std::string entries(std::uint64_t parent) { return join('D', parent); }
inline std::string entry(std::uint64_t parent, std::string_view name) {
  return entries(parent) + std::string(name);
}
inline std::string xattrs(std::uint64_t inode) { return join('X', inode); }
inline std::string xattr(std::uint64_t inode, std::string_view name) {
  return xattrs(inode) + std::string(name);
}
inline std::string binding(std::uint64_t id) { return join('B', id); }
inline std::string pushes(std::uint64_t binding) { return join('P', binding); }
inline std::string push(std::uint64_t binding, std::uint64_t sequence) {
  return join('P', binding, sequence);
}

inline std::string outcomes(std::uint64_t session) { return join('O', session); }
inline std::string outcome(std::uint64_t session, std::uint64_t inode, std::uint64_t ordinal) {
  return join('O', session, inode, ordinal);
}
inline std::string outcome_count(std::uint64_t session) { return join('N', session); }
inline std::string outcome_slots(std::uint64_t session) { return join('Q', session); }
inline std::string outcome_slot(std::uint64_t session, std::uint64_t count) {
  return outcome_slots(session) + slot(count % kOutcomesKept);
}

// All three kinds of step rows of a binding, and those of one worker name.
inline std::string step_worker(std::uint64_t binding, std::string_view run, std::string_view worker) {
  return join('V', binding) + text(run) + text(worker);
}
inline std::string steps(std::uint64_t binding, std::string_view run, std::string_view worker) {
  return join('T', binding) + text(run) + text(worker);
}
inline std::string step(std::uint64_t binding, std::string_view run, std::string_view worker,
                        std::uint64_t step) {
  return steps(binding, run, worker) + number(step);
}
inline std::string step_slots(std::uint64_t binding, std::string_view run, std::string_view worker) {
  return join('U', binding) + text(run) + text(worker);
}
inline std::string step_slot(std::uint64_t binding, std::string_view run, std::string_view worker,
                             std::uint64_t count) {
  return step_slots(binding, run, worker) + slot(count % kStepsKept);
}

inline std::string answers(std::uint64_t client) { return join('R', client); }
inline std::string answer(std::uint64_t client, std::uint64_t request_id) {
  return answers(client) + slot(request_id % kAnswersKept);
}

// What workers are told; the tags are in order.
inline constexpr char kDropImage = 'a';
inline constexpr char kDropBinding = 'b';
inline constexpr char kCommitInode = 'c';
inline std::string command(char kind, std::uint64_t worker, std::uint64_t id) {
  return join(kind, worker, id);
}

inline std::string session(std::uint64_t id) { return join('S', id); }
inline std::string leases(std::uint64_t session) { return join('L', session); }
inline std::string lease(std::uint64_t session, std::uint64_t inode) { return join('L', session, inode); }
inline std::string allocations(std::uint64_t session) { return join('A', session); }
inline std::string allocation(std::uint64_t session, std::uint64_t inode) {
  return join('A', session, inode);
}
inline std::string worker(std::uint64_t id) { return join('W', id); }

}  // namespace gradfs::keys
