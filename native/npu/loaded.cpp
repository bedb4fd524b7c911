#include "loaded.hpp"

#include <cstring>

#include "../error.hpp"

namespace rl::npu {
namespace {

constexpr int kTrailerWords = 4;
constexpr std::int64_t kWord = 8, kAlignment = 16;
constexpr int kMostWords = 1 << 24;
constexpr std::uint64_t kValueMask = std::uint64_t{0xffffffff} << 16;

template <typename T>
bool copy(Array<T> &to, const T *from, int count) {
  if (count < 0 || (count > 0 && from == nullptr) || !to.allocate(static_cast<std::size_t>(count))) return false;
  if (count > 0) std::memcpy(to.data(), from, static_cast<std::size_t>(count) * sizeof(T));
  return true;
}

bool holds(const rl_npu_binding &range, std::int64_t offset, std::int64_t bytes) {
  return offset >= range.first && bytes <= range.bytes && offset - range.first <= range.bytes - bytes;
}

void add(std::uint32_t *list, std::uint32_t &count, std::uint32_t handle) {
  for (std::uint32_t i = 0; i < count; ++i)
    if (list[i] == handle) return;
  list[count++] = handle;
}

}  // namespace

Owned<Loaded> Loaded::create(const rl_npu_chain &chain, int buffer, const Slot &slot, std::int64_t offset) {
  Owned<Loaded> loaded = make_owned<Loaded>();
  if (chain.n_words < kTrailerWords || chain.n_words > kMostWords || chain.programs < 1 ||
      chain.programs > kPiecesInKick || chain.starts == nullptr || chain.body_words == nullptr) {
    fail("a chain has %d programs in %d words, expected 1 to %d with a trailer of %d words each", chain.programs,
         chain.n_words, kPiecesInKick, kTrailerWords);
    return nullptr;
  }
  if (loaded == nullptr || !copy(loaded->words_, chain.words, chain.n_words) ||
      !copy(loaded->relocations_, chain.relocations, chain.n_relocations) ||
      !copy(loaded->marks_, chain.marks, chain.n_marks) || !copy(loaded->starts_, chain.starts, chain.programs) ||
      !loaded->pieces_.allocate(static_cast<std::size_t>(chain.programs))) {
    fail("a chain's lists are missing, or there is not enough memory for a copy of them");
    return nullptr;
  }
  const std::int64_t bytes = chain.n_words * kWord;
  if (offset < 0 || offset % kAlignment != 0 || offset > slot.memory.bytes - bytes) {
    fail("a chain of %lld bytes lies at byte %lld of a buffer of %lld, expected room for it at a multiple of %lld",
         static_cast<long long>(bytes), static_cast<long long>(offset), static_cast<long long>(slot.memory.bytes),
         static_cast<long long>(kAlignment));
    return nullptr;
  }
  for (int i = 0; i < chain.programs; ++i) {
    const int start = chain.starts[i], body = chain.body_words[i];
    if (start < 0 || start % 2 != 0 || body < 0 || body > chain.n_words - kTrailerWords ||
        start > chain.n_words - kTrailerWords - body) {
      fail("program %d of a chain has %d words from word %d, which are not all among its %d", i, body, start,
           chain.n_words);
      return nullptr;
    }
    loaded->pieces_[static_cast<std::size_t>(i)].body_words = static_cast<std::uint32_t>(body);
  }
  for (const rl_npu_relocation &r : loaded->relocations_)
    if (r.word < 0 || r.word >= chain.n_words || r.role < RL_NPU_OWN_WORDS || r.role >= RL_NPU_ROLES) {
      fail("a chain needs the address of role %d in word %d, expected roles up to %d and words below %d", r.role, r.word,
           RL_NPU_ROLES - 1, chain.n_words);
      return nullptr;
    }
  for (const rl_npu_mark &mark : loaded->marks_)
    if (mark.role < 0 || mark.role >= RL_NPU_ROLES) {
      fail("a mark lies in role %d, expected 0 to %d", mark.role, RL_NPU_ROLES - 1);
      return nullptr;
    }
  loaded->own_ = rl_npu_binding{buffer, 0, 0, offset, bytes};
  loaded->own_serial_ = slot.serial;
  return loaded;
}

int Loaded::bind(const List<Slot> &slots, const rl_npu_binding *bindings, int roles) {
  if (roles < 0 || roles > RL_NPU_ROLES || (roles > 0 && bindings == nullptr))
    return fail("%d roles are bound, expected at most %d", roles, RL_NPU_ROLES);
  if (slots[own_.buffer].serial != own_serial_)
    return fail("the buffer of a program's own words was released; load the program again");
  const Memory &home = slots[own_.buffer].memory;
  for (int role = 0; role < roles; ++role) {
    const rl_npu_binding &to = bindings[role];
    if (to.buffer == -1) continue;
    if (to.buffer < 0 || to.buffer >= slots.size() || slots[to.buffer].serial == 0)
      return fail("role %d is bound to buffer %d, which does not exist", role, to.buffer);
    const Memory &memory = slots[to.buffer].memory;
    if (memory.space != home.space)
      return fail("role %d lies in address space %d, expected the program's, %d; give each space its own buffers", role,
                  memory.space, home.space);
    if (to.first < 0 || to.offset < 0 || to.bytes < 0 || to.bytes > memory.bytes || to.offset > memory.bytes - to.bytes)
      return fail("role %d has %lld bytes from byte %lld of a buffer of %lld", role, static_cast<long long>(to.bytes),
                  static_cast<long long>(to.offset), static_cast<long long>(memory.bytes));
  }
  auto range_of = [&](std::int32_t role) -> const rl_npu_binding * {
    if (role == RL_NPU_OWN_WORDS) return &own_;
    return role < roles && bindings[role].buffer >= 0 ? &bindings[role] : nullptr;
  };
  for (const rl_npu_relocation &r : relocations_) {
    const rl_npu_binding *range = range_of(r.role);
    if (range == nullptr) return fail("the program names role %d, which is not bound; bind every role", r.role);
    if (!holds(*range, r.offset, 1))
      return fail("word %d points at byte %lld of role %d, which has bytes %lld to %lld", r.word,
                  static_cast<long long>(r.offset), r.role, static_cast<long long>(range->first),
                  static_cast<long long>(range->first + range->bytes));
  }
  for (const rl_npu_mark &mark : marks_) {
    const rl_npu_binding *range = range_of(mark.role);
    if (range == nullptr || range->written == 0 || !holds(*range, mark.offset, 4) ||
        (mark.offset - range->first + range->offset) % 4 != 0)
      return fail("the mark at byte %lld of role %d is not an int32 that the program writes",
                  static_cast<long long>(mark.offset),
                  mark.role);
  }
  auto *out = reinterpret_cast<std::uint64_t *>(home.data + own_.offset);
  std::memcpy(out, words_.data(), words_.size() * sizeof(std::uint64_t));
  for (const rl_npu_relocation &r : relocations_) {
    const rl_npu_binding &range = *range_of(r.role);
    const std::uint64_t address = slots[range.buffer].memory.address +
                                  static_cast<std::uint64_t>(range.offset + r.offset - range.first);
    out[r.word] = (out[r.word] & ~kValueMask) | (address << 16 & kValueMask);
  }
  for (std::size_t i = 0; i < pieces_.size(); ++i)
    pieces_[i].address = home.address + static_cast<std::uint64_t>(own_.offset + starts_[i] * kWord);
  roles_ = roles;
  n_reads_ = n_writes_ = 0;
  for (int role = 0; role < roles; ++role) {
    const rl_npu_binding &to = bindings[role];
    bound_[role] = Bound{to, to.buffer < 0 ? 0 : slots[to.buffer].serial};
    if (to.buffer >= 0 && to.written != 0) add(writes_, n_writes_, slots[to.buffer].memory.handle);
  }
  // Mainline skips a job that names a buffer in both lists: one that is written is in that list alone.
  for (int role = -1; role < roles; ++role) {
    const rl_npu_binding &to = role < 0 ? own_ : bindings[role];
    if (to.buffer < 0) continue;
    const std::uint32_t handle = slots[to.buffer].memory.handle;
    bool written = false;
    for (std::uint32_t i = 0; i < n_writes_; ++i) written |= writes_[i] == handle;
    if (!written) add(reads_, n_reads_, handle);
  }
  is_bound_ = true;
  marked_ = false;
  return 0;
}

int Loaded::check(const List<Slot> &slots) const {
  if (!is_bound_) return fail("a program was submitted before its addresses were bound; bind it first");
  bool alive = slots[own_.buffer].serial == own_serial_;
  for (int role = 0; role < roles_; ++role) {
    const Bound &bound = bound_[role];
    alive = alive && (bound.to.buffer < 0 || slots[bound.to.buffer].serial == bound.serial);
  }
  return alive ? 0 : fail("a buffer of a program was released; bind the program to another");
}

CoreJob Loaded::job(const List<Slot> &slots) const {
  return CoreJob{slots[own_.buffer].memory.space, 0, pieces_.data(), static_cast<std::uint32_t>(pieces_.size()),
                 reads_, n_reads_, writes_, n_writes_};
}

const std::uint8_t *Loaded::mark_at(const List<Slot> &slots, const rl_npu_mark &mark) const {
  const rl_npu_binding &to = bound_[mark.role].to;
  return slots[to.buffer].memory.data + to.offset + mark.offset - to.first;
}

int Loaded::mark(Device &device, const List<Slot> &slots) {
  constexpr std::int32_t sentinel = RL_NPU_SENTINEL;
  for (const rl_npu_mark &mark : marks_)
    std::memcpy(const_cast<std::uint8_t *>(mark_at(slots, mark)), &sentinel, sizeof sentinel);
  for (std::size_t i = 0; i < marks_.size(); ++i)
    if (sync_mark(device, slots, i, RL_NPU_TO_DEVICE) < 0) return -1;
  marked_ = true;
  return 0;
}

// The bytes of a mark alone; with a driver that syncs whole buffers, each buffer of marks once.
int Loaded::sync_mark(Device &device, const List<Slot> &slots, std::size_t number, int direction) const {
  const std::int32_t buffer = bound_[marks_[number].role].to.buffer;
  if (!device.syncs_ranges())
    for (std::size_t i = 0; i < number; ++i)
      if (bound_[marks_[i].role].to.buffer == buffer) return 0;
  const Memory &memory = slots[buffer].memory;
  return device.sync(memory, mark_at(slots, marks_[number]) - memory.data, sizeof(std::int32_t), direction);
}

int Loaded::untouched(const List<Slot> &slots) const {
  int count = 0;
  for (const rl_npu_mark &mark : marks_) {
    std::int32_t found = 0;
    std::memcpy(&found, mark_at(slots, mark), sizeof found);
    count += found == RL_NPU_SENTINEL;
  }
  return count;
}

int Loaded::collect(Device &device, const List<Slot> &slots) const {
  for (int role = 0; role < roles_; ++role) {
    const rl_npu_binding &to = bound_[role].to;
    if (to.buffer < 0 || to.written != 1 || to.bytes == 0) continue;
    if (device.sync(slots[to.buffer].memory, to.offset, to.bytes, RL_NPU_FROM_DEVICE) < 0) return -1;
  }
  for (std::size_t i = 0; i < marks_.size(); ++i)
    if (bound_[marks_[i].role].to.written != 1 && sync_mark(device, slots, i, RL_NPU_FROM_DEVICE) < 0) return -1;
  return 0;
}

}  // namespace rl::npu
