// A program: operations, bands and buffers as Python planned them, with the memory and threads to run them.
#pragma once

#include "kernels.hpp"
#include "memory.hpp"
#include "pool.hpp"
#include "rockledge.h"

namespace rl {

constexpr int kStepLogits = -2;
constexpr int kPartsPerThread = 4;  // attention is cut into splits while it has fewer heads x rows than this

class Program final : public Job {
 public:
  // Null with a sentence in last_error() when something does not fit together.
  static Owned<Program> create(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands,
                               const rl_buffer *buffers, int n_buffers, const rl_shape &shape, int threads,
                               int kernel);

  int run(const rl_step &step, int first, int last);
  int copy_page(int from, int to);
  void count_into(std::int64_t *times) { times_ = times; }
  void *buffer(int number);
  int kernel() const { return kernels_->id; }
  std::int64_t bytes() const { return static_cast<std::int64_t>(arena_.size() + kv_pool_.size()); }

  // Job
  Phase next(int thread) override;
  void work(std::uint32_t first, std::uint32_t count, int thread) override;

 private:
  // validate.cpp
  int check_shape(bool uses_cache) const;
  int check_buffers() const;
  int check_bands() const;
  int check_op(int number);
  int check_step(const rl_step &step, int first, int last);

  // program.cpp
  bool copy(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands, const rl_buffer *buffers, int n_buffers);
  int plan(int threads);
  std::int64_t row_bytes(const rl_buffer &buffer) const;
  int logits_width(const rl_op &op) const;

  // executor.cpp
  void step_on();
  int rows_of(const rl_op &op) const;
  Phase phase_of(const rl_op &op);
  void turn_angles();
  void linear(const rl_op &op, std::uint32_t first, std::uint32_t count, Scratch &scratch);
  void row(const rl_op &op, int row, Scratch &scratch);
  void rope_kv(const rl_op &op, int row, Scratch &scratch);
  void attend_row(const rl_op &op, std::uint32_t unit, Scratch &scratch);
  void attend_part(const rl_op &op, std::uint32_t unit, Scratch &scratch);
  void merge_parts(const rl_op &op);
  void embed(const rl_op &op, int row, Scratch &scratch);
  AttentionTask attention_task(const rl_op &op, int row) const;
  KvLayer layer(int number) const;
  QuantOut quant_out(const rl_op &op, int row) const;
  const float *angles_of(const float *frequencies) const;

  template <typename T>
  T *at(int buffer, int row) const {
    const auto number = static_cast<std::size_t>(buffer);
    return reinterpret_cast<T *>(arena_.data() + offsets_[number] + row * strides_[number]);
  }

  Array<rl_op> ops_;
  Array<rl_band> bands_;
  Array<rl_buffer> buffers_;
  rl_shape shape_{};
  const Kernels *kernels_ = nullptr;

  Array<std::int64_t> offsets_, strides_;   // of each buffer: bytes into the arena, bytes of a row
  Array<std::int32_t> strips_before_;       // of each band: strips of all bands before it; one more at the end
  Array<const float *> frequencies_;        // the distinct rotary frequencies, each with a table of angles
  std::size_t frequencies_count_ = 0;
  Array<std::int32_t> last_position_;       // of each sequence of a step, while it is checked
  Array<Scratch> scratch_;                  // of each thread
  Pages arena_, kv_pool_;
  std::int64_t angles_offset_ = 0, parts_offset_ = 0;
  std::int64_t page_bytes_ = 0;
  int head_stride_ = 0, max_splits_ = 1;
  int vocab_ = 0;  // width of a row of step logits

  // The step that is running.
  std::atomic<bool> busy_{false};
  rl_step step_{};
  int current_ = 0, end_ = 0;
  std::int64_t *times_ = nullptr;  // of each operation, in nanoseconds; null: nobody wants to know
  std::int64_t begun_ = 0;         // when the current one began; 0 before the first
  bool turned_ = false;   // the rotary angles of this step are ready
  int splits_ = 0;        // of the open attention phase; 0 when its units are whole rows

  Pool threads_;  // last: its threads end before the memory above goes
};

}  // namespace rl
