// A program: operations, bands and buffers as Python planned them, with the memory and threads to run them.
#pragma once

#include <algorithm>

#include "kernels.hpp"
#include "memory.hpp"
#include "npu/offload.hpp"
#include "pool.hpp"
#include "rockledge.h"

namespace rl {

constexpr int kStepLogits = -2;
constexpr int kScoreBias = 3;       // the weight of an operation that is one
constexpr int kTurned = 2, kWhole = 3;  // of RL_ROPE_KV's dim
constexpr int kMaxPools = 64;       // one for each size of a window
constexpr int kPartsPerThread = 4;  // attention is cut into splits while it has fewer heads x rows than this

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

// Where the parts of a thread's own memory begin (kernels.hpp: Scratch), after the tables; `first` is that of the arena.
struct ScratchPlan {
  std::int64_t weights = 0, excess = 0, row = 0, attention = 0, partial = 0, drawing = 0, bytes = 0, first = 0;
};

class Program final : public Job {
 public:
  // Checked, and nothing taken for arena and cache yet: it cannot run. Null with a sentence in last_error().
  static Owned<Program> laid_out(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands,
                                 const rl_buffer *buffers, int n_buffers, const rl_shape &shape, int threads);
  // Null with a sentence in last_error() when something does not fit together.
  static Owned<Program> create(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands,
                               const rl_buffer *buffers, int n_buffers, const rl_shape &shape, int threads,
                               int kernel);

  int run(const rl_step &step, int first, int last);
  int copy_page(int pool, int from, int to);
  std::int64_t page_bytes(int pool) const;  // of all its layers
  int read_page(int pool, int page, std::uint8_t *out) const;
  int write_page(int pool, int page, const std::uint8_t *data);
  int share_cache(const Program &other);
  // Null: the CPU does everything.
  int use_npu(const Shared<npu::Npu> *npu, const rl_npu_plan *plan);
  void npu_work(rl_npu_work &work) const;
  void count_into(std::int64_t *times) { times_ = times; }
  void *buffer(int number);
  int kernel() const { return kernels_->id; }
  std::int64_t arena_bytes() const { return arena_bytes_; }
  std::int64_t cache_bytes() const { return owns_cache_ ? cache_bytes_ : 0; }

  // Job
  Phase next(int thread) override;
  void work(std::uint32_t first, std::uint32_t count, int thread) override;

 private:
  // Positions of the first and the last row of a sequence in a step; the last is -1 before there is one.
  struct Reach {
    std::int32_t first, last;
  };

  // validate.cpp
  int check_shape(bool uses_cache) const;
  int check_buffers() const;
  int check_bands() const;
  int check_op(int number);
  bool check_turning(int number) const;
  int check_step(const rl_step &step, int first, int last);
  int check_draws(const rl_step &step, int last) const;
  int check_page(int pool, int page) const;
  int check_tables(const rl_step &step) const;

  // program.cpp
  bool copy(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands, const rl_buffer *buffers, int n_buffers,
            const rl_shape &shape);
  int lay_out(int threads);
  int allocate();
  std::int64_t row_bytes(const rl_buffer &buffer) const;
  int logits_width(const rl_op &op) const;

  // executor.cpp
  void step_on();
  int rows_of(const rl_op &op) const;
  Phase phase_of(const rl_op &op);
  void compute_angles();
  void compute_split_angles();
  void linear(const rl_op &op, std::uint32_t first, std::uint32_t count, Scratch &scratch);
  void row(const rl_op &op, int row, Scratch &scratch);
  void rope_kv(const rl_op &op, int row, Scratch &scratch);
  void attend_row(const rl_op &op, std::uint32_t unit, Scratch &scratch);
  void attend_part(const rl_op &op, std::uint32_t unit, Scratch &scratch);
  void merge_parts(const rl_op &op);
  void embed(const rl_op &op, int row, Scratch &scratch);
  int logits_parts() const;
  void logits_part(const rl_op &op, int unit);
  float *logits_of(int row) const { return logits_ + std::int64_t{row} * vocab_; }
  Phase draw_rows(Scratch &scratch);
  AttentionTask attention_task(const rl_op &op, int row) const;
  LinearTask linear_task(const rl_op &op, std::size_t band) const;
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
  const rl_pool &pool_of(const rl_op &op) const { return pools_[static_cast<std::size_t>(op.dim[1])]; }
  const std::int32_t *table(int pool, int sequence) const;
  KvLayer layer(int pool, int number) const;
  QuantOut quant_out(const rl_op &op, int row) const;
  std::size_t number_of(const float *frequencies) const;
  const float *angles_of(const float *frequencies) const;
  float growth_at(const rl_op &op, int position) const;

  // offload.cpp
  int check_offload(const rl_npu_plan &plan, Array<npu::LinearFacts> &facts);
  int producer_of(int op) const;
  int check_reader(int op, int producer) const;
  void begin_offloads();
  bool begin_offload();
  Phase offload_phase();
  void begin_again();
  void offload_work(const rl_op &op, std::uint32_t first, std::uint32_t count, int thread);
  void finish_strips(const rl_op &op, const npu::Offload::Duty &duty, int group, int thread);
  void unpack_strip(int block, int strip, int thread);
  void expect_sums(int vector) const;
  QuantOut npu_row(int linear, int space, int row) const;
  void spread_row(int row) const;

  template <typename T>
  T *at(int buffer, int row) const {
    const auto number = static_cast<std::size_t>(buffer);
    return reinterpret_cast<T *>(arena_.data() + offsets_[number] + row * strides_[number]);
  }

  Array<rl_op> ops_;
  Array<rl_band> bands_;
  Array<rl_buffer> buffers_;
  rl_shape shape_{};              // its pools are in pools_
  Array<rl_pool> pools_;
  Array<std::int64_t> pool_offsets_;  // of each pool: where it begins in the memory of all
  const Kernels *kernels_ = nullptr;

  Array<std::int64_t> offsets_, strides_;   // of each buffer: bytes into the arena, bytes of a row
  Array<std::int32_t> strips_before_;       // of each band: strips of all bands before it; one more at the end
  Array<Turning> turnings_;                 // the distinct rotary frequencies, each with a table of angles
  std::size_t turnings_count_ = 0;
  Array<Reach> reach_;                      // of each sequence of a step, while it is checked
  Array<Scratch> scratch_;                  // of each thread
  Pages arena_;
  Shared<Pages> kv_pool_;
  std::uint8_t *kv_base_ = nullptr;  // of that memory
  bool owns_cache_ = true;
  std::int64_t angles_offset_ = 0, parts_offset_ = 0, logits_offset_ = 0;
  // For the score bias, for each table of frequencies: angles within a split, then of the splits' starts.
  std::int64_t split_angles_offset_ = 0, split_angles_floats_ = 0;
  std::int64_t page_bytes_ = 0;
  std::int64_t arena_bytes_ = 0, cache_bytes_ = 0;
  ScratchPlan scratch_plan_;
  int head_stride_ = 0, max_splits_ = 1;
  int vocab_ = 0;  // width of a row of step logits

  // The step that is running.
  std::atomic<bool> busy_{false};
  rl_step step_{};
  int first_ = 0, current_ = 0, end_ = 0;
  std::int64_t *times_ = nullptr;  // of each operation, in nanoseconds; null: not measured
  std::int64_t begun_ = 0;         // when the current one began; 0 before the first
  float *logits_ = nullptr;    // the caller's, or the program's own
  bool drawing_ = false;       // the open phase draws from the logits
  bool angles_ready_ = false;  // the rotary angles of this step are ready
  int splits_ = 0;        // of the open attention phase; 0 when its units are whole rows

  // Linears on the NPU.
  Owned<npu::Offload> offload_;
  Array<std::int32_t> offloaded_;  // of each operation: the linear of the plan that it is, or -1
  Array<std::int32_t> feeds_;      // of each operation: the linear of the plan whose input it makes, or -1
  bool offloading_ = false;  // the open phase is for a linear there
  bool offloads_ = false;  // this step
  bool feeding_ = false;   // the open phase writes its rows into the NPU's input
  int fed_ = -1;           // the linear of the plan whose input is there
  bool cut_off_ = false;   // the step had to begin anew and cannot

  Pool threads_;  // last: its threads end before the memory above goes
};

}  // namespace rl
