// A chain of programs with the places that take addresses, and what it reads and writes once it has them.
#pragma once

#include <cstdint>

#include "device.hpp"
#include "list.hpp"
#include "npu.h"

namespace rl::npu {

// A buffer's memory while it lives; `serial` tells it from a later one of the same number.
struct Slot {
  Memory memory;
  std::int64_t serial;  // 0: free
  int holders;          // who keep it from being released
};

class Loaded {
 public:
  // Copies the chain; null and a sentence when it is none, or its words do not fit after `offset` of the buffer.
  static Owned<Loaded> create(const rl_npu_chain &chain, int buffer, const Slot &slot, std::int64_t offset);

  // Resolves all addresses and stores the words in the program's buffer. Every address is checked to lie in the range
  // that was bound; nothing is changed on failure.
  int bind(const List<Slot> &slots, const rl_npu_binding *bindings, int roles);
  // Where its words lie: (buffer, offset, bytes).
  int buffer() const { return own_.buffer; }
  std::int64_t offset() const { return own_.offset; }
  std::int64_t bytes() const { return own_.bytes; }
  void hold(int by) { holders_ += by; }
  bool held() const { return holders_ > 0; }

  // Whether it was bound, and all its buffers still live.
  int check(const List<Slot> &slots) const;
  CoreJob job(const List<Slot> &slots) const;

  // Writes the sentinel wherever the program will write, or sees whether one is still there. A mark is for one start.
  int mark(Device &device, const List<Slot> &slots);
  bool marked() const { return marked_; }
  void used_mark() { marked_ = false; }
  int untouched(const List<Slot> &slots) const;
  // Hands to the CPU what the program wrote, or the marks of it.
  int collect(Device &device, const List<Slot> &slots) const;

 private:
  struct Bound {
    rl_npu_binding to;
    std::int64_t serial;
  };
  const std::uint8_t *mark_at(const List<Slot> &slots, const rl_npu_mark &mark) const;
  int sync_mark(Device &device, const List<Slot> &slots, std::size_t number, int direction) const;

  Array<std::uint64_t> words_;
  Array<rl_npu_relocation> relocations_;
  Array<rl_npu_mark> marks_;
  Array<std::int32_t> starts_;
  Array<Piece> pieces_;
  rl_npu_binding own_{};
  std::int64_t own_serial_ = 0;
  Bound bound_[RL_NPU_ROLES] = {};
  int roles_ = 0;
  bool is_bound_ = false, marked_ = false;
  int holders_ = 0;
  std::uint32_t reads_[RL_NPU_ROLES + 1] = {}, writes_[RL_NPU_ROLES + 1] = {};
  std::uint32_t n_reads_ = 0, n_writes_ = 0;
};

}  // namespace rl::npu
