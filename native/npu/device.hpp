// What a kernel driver of the NPU is to the rest: memory, jobs, waiting, a reset.
//
// Two drivers are known, each in one file. A call that fails returns -1 and leaves its sentence (error.hpp).
#pragma once

#include <atomic>
#include <cstdint>

#include "../memory.hpp"
#include "npu.h"

namespace rl::npu {

// A buffer that both sides see. `handle` and `object` are the driver's own names for it.
struct Memory {
  std::uint8_t *data;
  std::uint64_t address;
  std::int64_t bytes;  // whole pages
  std::int32_t space;
  std::uint32_t handle;
  std::uint64_t object;
};

struct Piece {
  std::uint64_t address;
  std::uint32_t body_words;
};

// One core's share of a submit. Mainline chooses the core by itself (rocket.cpp), so `core` is a wish. `reads` and `writes` are handles of the space's memory; none is in both.
struct CoreJob {
  std::int32_t space, core;
  const Piece *pieces;
  std::uint32_t count;
  const std::uint32_t *reads;
  std::uint32_t n_reads;
  const std::uint32_t *writes;
  std::uint32_t n_writes;
};

enum class Outcome { kDone, kFailed, kGone };  // kGone: a reset cannot help

class Device {
 public:
  virtual ~Device() = default;

  [[nodiscard]] virtual int allocate(int space, std::int64_t bytes, Memory &memory) = 0;
  virtual void release(const Memory &memory) = 0;
  // A range of a buffer, or where the driver cannot do ranges, all of it; also for several threads at once.
  [[nodiscard]] int sync(const Memory &memory, std::int64_t offset, std::int64_t bytes, int direction) {
    ++syncs_;
    (direction == RL_NPU_TO_DEVICE ? cleaned_ : invalidated_) += syncs_ranges() ? bytes : memory.bytes;
    return sync_range(memory, offset, bytes, direction);
  }
  // False: a sync is one of the whole buffer, whatever the range.
  virtual bool syncs_ranges() const = 0;
  void count_syncs(rl_npu_description &description) const {
    description.syncs = syncs_;
    description.cleaned_bytes = cleaned_;
    description.invalidated_bytes = invalidated_;
  }
  // Jobs for different cores; returns when they are on their way. One submit at a time.
  [[nodiscard]] virtual int submit(const CoreJob *jobs, int count, int timeout_ms) = 0;
  // Of the latest submit. Unless it is kDone, there is a sentence.
  [[nodiscard]] virtual Outcome wait() = 0;
  // What the latest job that is done took by the driver's own clock; 0 where it has none.
  virtual std::int64_t elapsed_ns() const { return 0; }
  // Leaves the cores idle and ready; what ran is lost.
  [[nodiscard]] virtual int reset() = 0;
  virtual int spaces() const = 0;
  virtual void describe(rl_npu_description &description) const = 0;

 protected:
  [[nodiscard]] virtual int sync_range(const Memory &memory, std::int64_t offset, std::int64_t bytes, int direction) = 0;

 private:
  std::atomic<std::int64_t> syncs_{0}, cleaned_{0}, invalidated_{0};
};

inline constexpr std::int64_t kPage = 4096;
inline constexpr std::uint64_t kAddressLimit = std::uint64_t{1} << 32;
inline constexpr int kPiecesInKick = 4095;

// The device of a flavour (RL_NPU_*), locked, and the path of its node; or null and a sentence.
Owned<Device> open_device(int flavour, char *path, int path_bytes);

}  // namespace rl::npu
