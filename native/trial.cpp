#include "trial.hpp"

#include <algorithm>
#include <cstring>

#include "clock.hpp"
#include "memory.hpp"

namespace rl {
namespace {

constexpr int kRows = 128, kCols = 1024, kBits = 4;  // of the band
constexpr int kPromptRows = 32, kAnswers = 8;        // rows of one pass, and passes of one row
constexpr int kTurns = 24;

// A linear that stays in the second cache, and what one thread needs for it.
class Trial {
 public:
  bool allocate() {
    constexpr std::int64_t kStrips = kRows / kStrip, kTiles = kCols / kTile;
    const std::int64_t sizes[] = {kStrips * kTiles * kStrip * kTile * kBits / 8, kStrips * kTiles * kStrip, 256,
                                  4 * kRows, kPromptRows * kCols, 4 * kPromptRows, std::int64_t{4} * kPromptRows * kRows,
                                  kTableBytes, block_bytes(kCols), 4 * kPromptRows};
    constexpr int kPlaces = sizeof sizes / sizeof *sizes;
    std::int64_t all = 0;
    for (const std::int64_t size : sizes) all += size + 64;
    if (!memory_.allocate(static_cast<std::size_t>(all))) return false;
    std::memset(memory_.data(), 1, memory_.size());
    std::uint8_t *places[kPlaces], *next = memory_.data();
    for (int i = 0; i < kPlaces; next += round_up(sizes[i++], 64)) places[i] = next;
    // Products of scales as small as bytes of 1 make them would underflow, which costs some processors more
    // than the rest of the linear.
    std::fill_n(reinterpret_cast<float *>(places[3]), kRows, 1.0F);
    std::fill_n(reinterpret_cast<float *>(places[5]), kPromptRows, 1.0F);
    band_.codes = places[0];
    band_.index = places[1];
    band_.tables = reinterpret_cast<const std::int8_t *>(places[2]);
    band_.scale = reinterpret_cast<const float *>(places[3]);
    band_.rows = kRows;
    band_.cols = kCols;
    band_.bits = kBits;
    task_.band = &band_;
    task_.x = reinterpret_cast<const std::int8_t *>(places[4]);
    task_.sx = reinterpret_cast<const float *>(places[5]);
    task_.y = reinterpret_cast<float *>(places[6]);
    task_.y_stride = kRows;
    task_.x_stride = kCols;
    task_.planes = 1;
    scratch_.tables = reinterpret_cast<std::int8_t *>(places[7]);
    scratch_.weights = places[8];
    scratch_.excess = reinterpret_cast<std::int32_t *>(places[9]);
    return true;
  }

  // Nanoseconds of part of a prompt and of some answers' rows.
  std::int64_t run(const Kernels &kernels) {
    const std::int64_t start = nanoseconds();
    scratch_.tables_of = nullptr;  // each kernel has its own form of them
    task_.rows = kPromptRows;
    kernels.linear(task_, 0, kRows / kStrip, scratch_);
    task_.rows = 1;
    for (int i = 0; i < kAnswers; ++i) kernels.linear(task_, 0, kRows / kStrip, scratch_);
    return nanoseconds() - start;
  }

 private:
  Pages memory_;
  rl_band band_{};
  LinearTask task_{};
  Scratch scratch_{};
};

}  // namespace

bool is_faster(const Kernels &one, const Kernels &other) {
  Trial trial;
  if (!trial.allocate()) return false;
  std::int64_t least = INT64_MAX, least_other = INT64_MAX;
  for (int turn = 0; turn < kTurns; ++turn) {
    least = std::min(least, trial.run(one));
    least_other = std::min(least_other, trial.run(other));
  }
  return least * 20 < least_other * 19;
}

}  // namespace rl
