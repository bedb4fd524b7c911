// What runs the steps of a program, one at a time: their memory and threads, and all that is so only while one runs. Steps of
// one program may run at once, on pages of the cache that the other does not write.
#pragma once

#include <atomic>

#include "npu/attention.hpp"
#include "npu/offload.hpp"
#include "pool.hpp"
#include "program.hpp"
#include "stream.hpp"

namespace rl {

constexpr int kPartsPerThread = 4;  // attention is cut into splits while it has fewer heads x rows than this

struct StepSizes {
  int max_rows, logit_rows, threads;
};

// Where the parts of a thread's own memory begin (kernels.hpp: Scratch), after the tables; `first` is that of the arena.
struct ScratchPlan {
  std::int64_t weights = 0, excess = 0, row = 0, attention = 0, partial = 0, drawing = 0, bytes = 0, first = 0;
};

class Step final : public Job {
 public:
  // Checked, and nothing taken yet: it cannot run. Null with a sentence in last_error().
  static Owned<Step> laid_out(const Shared<Program> &program, StepSizes sizes);
  static Owned<Step> create(const Shared<Program> &program, StepSizes sizes);
  Step(const Shared<Program> &program, StepSizes sizes) : owner_(program), program_(*owner_), sizes_(sizes) {}

  int run(const rl_batch &batch, int first, int last);
  // Null: the CPU does everything.
  int use_npu(const Shared<npu::Npu> *npu, const rl_npu_plan *plan);
  int attend_on_npu(const rl_npu_attention *plan);
  void npu_work(rl_npu_work &work) const;
  int use_stream(const Shared<Stream> &stream);
  void count_into(std::int64_t *times) { times_ = times; }
  int use_threads(int threads);  // from the next run on
  void *buffer(int number);
  std::int64_t arena_bytes() const { return arena_bytes_; }

  // Job
  Phase next(int thread) override;
  void work(std::uint32_t first, std::uint32_t count, int thread) override;

 private:
  // Positions of the first and the last row of a sequence in a step; the last is -1 before there is one.
  struct Reach {
    std::int32_t first, last;
  };

  // check_step.cpp
  int check_sizes() const;
  int check_batch(const rl_batch &batch, int first, int last);
  int check_draws(const rl_batch &batch, int last) const;
  int check_tables(const rl_batch &batch) const;

  // step.cpp
  int lay_out();
  int allocate();

  // executor.cpp
  void step_on();
  int rows_of(const rl_op &op) const;
  Phase phase_of(const rl_op &op);
  void linear(const rl_op &op, std::uint32_t first, std::uint32_t count, Scratch &scratch);
  void row(const rl_op &op, int row, Scratch &scratch);
  void embed(const rl_op &op, int row, Scratch &scratch);
  int logits_parts() const;
  void logits_part(const rl_op &op, int unit);
  float *logits_of(int row) const { return logits_ + std::int64_t{row} * program_.vocab(); }
  Phase draw_rows(Scratch &scratch);
  LinearTask linear_task(const rl_op &op, std::size_t band) const;
  QuantOut quant_out(const rl_op &op, int row) const;

  // attend.cpp
  Phase attention_phase(const rl_op &op);
  void compute_angles();
  const float *angles_of(const float *frequencies) const;
  void rope_kv(const rl_op &op, int row, Scratch &scratch);
  void cut_tiles(const rl_op &op, int most_rows);
  void attend_tile(const rl_op &op, std::uint32_t unit, Scratch &scratch);
  void attend_alone(const rl_op &op, Scratch &scratch);
  void attend_part(const rl_op &op, std::uint32_t unit, Scratch &scratch);
  int tile_tasks(const rl_op &op, int tile, AttentionTask *tasks) const;
  void merge_parts(const rl_op &op);
  AttentionTask attention_task(const rl_op &op, int row) const;
  const std::int32_t *table(int pool, int sequence) const;

  // attend_npu.cpp
  struct Run {
    std::int32_t first, rows;
  };
  void find_runs(const rl_op &op);
  void begin_run(const rl_op &op);
  Reach seen_by_run(const rl_op &op) const;
  Phase npu_attention_phase();
  int attention_units() const;
  void npu_attention_work(const rl_op &op, std::uint32_t first, std::uint32_t count, Scratch &scratch);
  void npu_attention_row(const rl_op &op, int row, Scratch &scratch);
  void lay_keys(const rl_op &op, int part) const;
  void lay_values(const rl_op &op, int part) const;
  void place_queries(const rl_op &op, int row) const;
  void expect_attention(int planes, int unit) const;
  bool on_npu(int row) const { return runs_count_ > 0 && on_npu_[static_cast<std::size_t>(row)] != 0; }

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

  // Of the current operation.
  const rl_band &band(std::size_t number) const { return stream_ ? stream_->band(number) : program_.bands()[number]; }
  const rl_op &current_op() const { return program_.ops()[static_cast<std::size_t>(current_)]; }
  template <typename T>
  T *at(int buffer, int row) const {
    const auto number = static_cast<std::size_t>(buffer);
    return reinterpret_cast<T *>(arena_.data() + offsets_[number] + row * strides_[number]);
  }
  float *floats_at(std::int64_t offset) const { return reinterpret_cast<float *>(arena_.data() + offset); }

  const Shared<Program> owner_;
  const Program &program_;
  const StepSizes sizes_;

  Array<std::int64_t> offsets_, strides_;  // of each buffer: bytes into the arena, bytes of a row
  Array<Reach> reach_;                     // of each sequence of a batch, while it is checked
  Array<std::int32_t> tiles_;              // of the open attention: the first row of each tile, and where the last ends
  Array<Scratch> scratch_;                 // of each thread
  Pages arena_;
  std::int64_t arena_bytes_ = 0;
  std::int64_t angles_offset_ = 0, parts_offset_ = 0, logits_offset_ = 0;
  ScratchPlan scratch_plan_;

  // What is running.
  std::atomic<bool> busy_{false};
  rl_batch batch_{};
  int first_ = 0, current_ = 0, end_ = 0;
  std::int64_t *times_ = nullptr;  // of each operation, in nanoseconds; null: not measured
  std::int64_t begun_ = 0;         // when the current one began; 0 before the first
  float *logits_ = nullptr;        // the caller's, or those in the arena
  bool drawing_ = false;           // the open phase draws from the logits
  bool angles_ready_ = false;      // the rotary angles of this batch are there
  int tiles_count_ = 0;            // of the open attention
  int splits_ = 0;                 // of the open attention phase; 0 when its units are whole tiles

  // Linears on the NPU.
  Owned<npu::Offload> offload_;
  Array<std::int32_t> offloaded_;  // of each operation: the linear of the plan that it is, or -1
  Array<std::int32_t> feeds_;      // of each operation: the linear of the plan whose input it makes, or -1
  bool offloading_ = false;  // the open phase is for a linear there
  bool offloads_ = false;    // this batch
  bool feeding_ = false;     // the open phase writes its rows into the NPU's input
  int fed_ = -1;             // the linear of the plan whose input is there
  bool cut_off_ = false;     // it had to begin anew and cannot

  // Attention there. `attended_`: this step's rows are counted.
  Owned<npu::Attention> attention_;
  Array<std::uint8_t> on_npu_;  // of each row of the open attention
  Array<Run> runs_;             // of such rows
  Pages partials_;              // of each row of a run two, floats: of the splits before, and of the one it is at
  int runs_count_ = 0, run_ = 0;
  bool attending_ = false;      // the open phase is for a run
  bool attended_ = false;
  bool wrong_once_ = false;     // in this step

  Shared<Stream> stream_;       // empty: all weights are in memory
  bool file_failed_ = false;    // they could not be read

  Pool threads_;  // last: its threads end before the memory above goes
};

}  // namespace rl
