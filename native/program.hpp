// A program: operations, bands and buffers as Python planned them, and the key/value cache that they work on. All its steps
// share it; but for the pages of the cache it stays as it was created.
#pragma once

#include <algorithm>
#include <span>

#include "kernels.hpp"
#include "memory.hpp"
#include "rockledge.h"

namespace rl {

constexpr int kStepLogits = -2;
constexpr int kScoreBias = 3;       // the weight of an operation that is one
constexpr int kTurned = 2, kWhole = 3;  // of RL_ROPE_KV's dim
constexpr int kMaxPools = 64;       // one for each size of a window

// The first position that a query at `position` sees.
inline int first_seen(const rl_pool &pool, int position) {
  return pool.window == 0 ? 0 : std::max(0, position + 1 - pool.window);
}

// Rotary frequencies [turned / 2], and what the cosines and sines of their angles are multiplied by.
struct Turning {
  const float *frequencies = nullptr;
  int turned = 0;
  float factor = 1.0f;
};

class Program {
 public:
  // Checked, and nothing taken for cache and tables yet: no step can run. Empty with a sentence in last_error().
  static Shared<Program> laid_out(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands,
                                  const rl_buffer *buffers, int n_buffers, const rl_shape &shape);
  // Empty with a sentence in last_error() when something does not fit together.
  static Shared<Program> create(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands,
                                const rl_buffer *buffers, int n_buffers, const rl_shape &shape, int kernel);

  int copy_page(int pool, int from, int to);
  std::int64_t page_bytes(int pool) const;  // of all its layers
  int read_page(int pool, int page, std::uint8_t *out) const;
  int write_page(int pool, int page, const std::uint8_t *data);
  std::int64_t table_bytes() const { return table_bytes_; }
  std::int64_t cache_bytes() const { return cache_bytes_; }

  const Array<rl_op> &ops() const { return ops_; }
  const Array<rl_band> &bands() const { return bands_; }
  const Array<rl_buffer> &buffers() const { return buffers_; }
  const rl_shape &shape() const { return shape_; }
  const Array<rl_pool> &pools() const { return pools_; }
  const Kernels &kernels() const { return *kernels_; }
  // The distinct rotary frequencies, and which of them these are.
  std::span<const Turning> turnings() const { return {turnings_.data(), turnings_count_}; }
  std::size_t number_of(const float *frequencies) const;
  int head_stride() const { return head_stride_; }
  int vocab() const { return vocab_; }             // width of a row of step logits
  bool has_cache() const { return page_bytes_ != 0; }
  int most_splits() const { return most_splits_; }  // that a query sees in any pool
  const rl_pool &pool_of(const rl_op &op) const { return pools_[static_cast<std::size_t>(op.dim[1])]; }
  KvLayer layer(int pool, int number) const;
  int logits_width(const rl_op &op) const;
  // For the score bias (kernels.hpp: AttentionTask): angles within a split, and of the splits' starts.
  const float *split_angles(std::size_t turning) const;
  const float *split_starts(std::size_t turning) const;

  // Strips of all bands before one of them.
  int strips_before(std::size_t band) const { return strips_before_[band]; }
  // use(band, first, last) for the bands of an operation's strips, and their strips in each.
  template <typename Use>
  void each_band(const rl_op &op, int first, int count, Use use) const {
    int strip = strips_before_[static_cast<std::size_t>(op.first_band)] + first;
    const int end = strip + count;
    const std::int32_t *bounds = strips_before_.data();
    // The band of a strip: the last one that starts at or before it.
    auto b = std::upper_bound(bounds + op.first_band, bounds + op.first_band + op.bands, strip) - bounds - 1;
    for (; strip < end; ++b) {
      const int stop = std::min(end, bounds[b + 1]);
      use(static_cast<std::size_t>(b), strip - bounds[b], stop - bounds[b]);
      strip = stop;
    }
  }

 private:
  // check_program.cpp
  int check_shape(bool uses_cache) const;
  int check_buffers() const;
  int check_bands() const;
  int check_op(int number);
  bool continues(int number) const;
  int head_width(int number) const;
  bool check_turning(int number) const;
  int check_page(int pool, int page) const;

  bool copy(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands, const rl_buffer *buffers, int n_buffers,
            const rl_shape &shape);
  int lay_out();
  int allocate();
  void compute_split_angles();

  Array<rl_op> ops_;
  Array<rl_band> bands_;
  Array<rl_buffer> buffers_;
  rl_shape shape_{};              // its pools are in pools_
  Array<rl_pool> pools_;
  Array<std::int64_t> pool_offsets_;  // of each pool: where it begins in the memory of all
  const Kernels *kernels_ = nullptr;
  Array<std::int32_t> strips_before_;  // of each band; one more at the end
  Array<Turning> turnings_;
  std::size_t turnings_count_ = 0;
  int head_stride_ = 0, most_splits_ = 1, vocab_ = 0;
  std::int64_t page_bytes_ = 0;  // of a layer

  Pages cache_, tables_;
  std::int64_t cache_bytes_ = 0, table_bytes_ = 0;
  std::int64_t split_angles_floats_ = 0;  // of a turning; 0: there is no score bias
  int context_splits_ = 1;
};

}  // namespace rl
