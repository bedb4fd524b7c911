// The C interface of rockledge.h: null checks, then the core.
#include "bandwidth.hpp"
#include "bus_error.hpp"
#include "convert.hpp"
#include "error.hpp"
#include "handle.hpp"
#include "kernels.hpp"
#include "memory.hpp"
#include "rockledge.h"

namespace {

bool whole(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands, const rl_buffer *buffers, int n_buffers,
           const rl_shape *shape) {
  if (n_ops >= 0 && n_bands >= 0 && n_buffers >= 0 && shape != nullptr && (n_ops == 0 || ops != nullptr) &&
      (n_bands == 0 || bands != nullptr) && (n_buffers == 0 || buffers != nullptr))
    return true;
  rl::fail("a program needs a shape, and lists of operations, bands and buffers with their lengths");
  return false;
}

}  // namespace

extern "C" {

int32_t rl_abi(void) { return RL_ABI; }

const char *rl_error(void) { return rl::last_error(); }

void rl_explain_bus_errors(const void *begin, int64_t bytes, const char *sentence, int32_t exit_code) {
  if (bytes > 0)
    rl::explain_bus_errors(begin, bytes, sentence, exit_code);
  else
    rl::leave_bus_errors(begin);
}


const char *rl_kernel_name(int32_t kernel) { return rl::kernel_name(kernel); }

int32_t rl_program_plan(const rl_op *ops, int32_t n_ops, const rl_band *bands, int32_t n_bands,
                        const rl_buffer *buffers, int32_t n_buffers, const rl_shape *shape, int32_t threads,
                        rl_memory *memory) {
  if (memory == nullptr) return rl::fail("a plan needs a place for its result");
  if (!whole(ops, n_ops, bands, n_bands, buffers, n_buffers, shape)) return -1;
  const rl::Shared<rl::Program> program =
      rl::Program::laid_out(ops, n_ops, bands, n_bands, buffers, n_buffers, *shape);
  if (!program) return -1;
  const rl::Owned<rl::Step> step =
      rl::Step::laid_out(program, rl::StepSizes{shape->max_rows, shape->logit_rows, threads});
  if (step == nullptr) return -1;
  *memory = rl_memory{step->arena_bytes(), program->table_bytes(), program->cache_bytes()};
  return 0;
}

rl_program *rl_program_create(const rl_op *ops, int32_t n_ops, const rl_band *bands, int32_t n_bands,
                              const rl_buffer *buffers, int32_t n_buffers, const rl_shape *shape, int32_t kernel) {
  if (!whole(ops, n_ops, bands, n_bands, buffers, n_buffers, shape)) return nullptr;
  rl::Shared<rl::Program> core = rl::Program::create(ops, n_ops, bands, n_bands, buffers, n_buffers, *shape, kernel);
  if (!core) return nullptr;
  rl::Owned<rl_program> program = rl::make_owned<rl_program>(rl_program{std::move(core)});
  if (program == nullptr) rl::fail("not enough memory for a program; free some");
  return program.release();
}

void rl_program_destroy(rl_program *program) { rl::Owned<rl_program>{program}.reset(); }

int32_t rl_program_kernel(const rl_program *program) {
  return program == nullptr ? rl::fail("no program was given") : program->core->kernels().id;
}

int32_t rl_program_memory(const rl_program *program, rl_memory *memory) {
  if (program == nullptr || memory == nullptr) return rl::fail("no program was given, or no place for its memory");
  *memory = rl_memory{0, program->core->table_bytes(), program->core->cache_bytes()};
  return 0;
}

rl_step *rl_step_create(rl_program *program, int32_t max_rows, int32_t logit_rows, int32_t threads) {
  if (program == nullptr) {
    rl::fail("a step needs a program");
    return nullptr;
  }
  rl::Owned<rl::Step> core = rl::Step::create(program->core, rl::StepSizes{max_rows, logit_rows, threads});
  if (core == nullptr) return nullptr;
  rl::Owned<rl_step> step = rl::make_owned<rl_step>(rl_step{std::move(core)});
  if (step == nullptr) rl::fail("not enough memory for a step; free some");
  return step.release();
}

void rl_step_destroy(rl_step *step) { rl::Owned<rl_step>{step}.reset(); }

int32_t rl_step_memory(const rl_step *step, rl_memory *memory) {
  if (step == nullptr || memory == nullptr) return rl::fail("no step was given, or no place for its memory");
  *memory = rl_memory{step->core->arena_bytes(), 0, 0};
  return 0;
}

int32_t rl_step_run(rl_step *step, const rl_batch *batch, int32_t first, int32_t last) {
  if (step == nullptr || batch == nullptr) return rl::fail("a run needs a step and its rows");
  return step->core->run(*batch, first, last);
}

int32_t rl_step_use_threads(rl_step *step, int32_t threads) {
  if (step == nullptr) return rl::fail("no step was given");
  return step->core->use_threads(threads);
}

int32_t rl_step_times(rl_step *step, int64_t *times) {
  if (step == nullptr) return rl::fail("no step was given");
  step->core->count_into(times);
  return 0;
}

rl_stream *rl_stream_create(rl_program *program, const rl_stream_plan *plan) {
  if (program == nullptr || plan == nullptr) {
    rl::fail("a stream needs a program and a plan");
    return nullptr;
  }
  rl::Shared<rl::Stream> core = rl::Stream::create(program->core, *plan);
  if (!core) return nullptr;
  rl::Owned<rl_stream> stream = rl::make_owned<rl_stream>(rl_stream{std::move(core)});
  if (stream == nullptr) rl::fail("not enough memory for a stream of weights; free some");
  return stream.release();
}

void rl_stream_destroy(rl_stream *stream) { rl::Owned<rl_stream>{stream}.reset(); }

int32_t rl_stream_get_stats(rl_stream *stream, rl_stream_stats *stats) {
  if (stream == nullptr || stats == nullptr) return rl::fail("no stream was given, or no place for its numbers");
  stream->core->stats(*stats);
  return 0;
}

int32_t rl_step_use_stream(rl_step *step, rl_stream *stream) {
  if (step == nullptr || stream == nullptr) return rl::fail("no step or no stream was given");
  return step->core->use_stream(stream->core);
}

void *rl_step_buffer(rl_step *step, int32_t buffer) {
  if (step == nullptr) {
    rl::fail("no step was given");
    return nullptr;
  }
  return step->core->buffer(buffer);
}

int32_t rl_copy_page(rl_program *program, int32_t pool, int32_t from, int32_t to) {
  return program == nullptr ? rl::fail("no program was given") : program->core->copy_page(pool, from, to);
}

int64_t rl_page_bytes(const rl_program *program, int32_t pool) {
  return program == nullptr ? rl::fail("no program was given") : program->core->page_bytes(pool);
}

int32_t rl_read_page(const rl_program *program, int32_t pool, int32_t page, uint8_t *out) {
  if (program == nullptr || out == nullptr) return rl::fail("no program was given, or no place for a page");
  return program->core->read_page(pool, page, out);
}

int32_t rl_write_page(rl_program *program, int32_t pool, int32_t page, const uint8_t *data) {
  if (program == nullptr || data == nullptr) return rl::fail("no program was given, or no page");
  return program->core->write_page(pool, page, data);
}

double rl_read_bandwidth(int64_t bytes, int32_t threads, int32_t repeats, int32_t huge) {
  return rl::read_bandwidth(bytes, threads, repeats, huge != 0);
}

int32_t rl_turn_rows(float *x, int32_t rows, int32_t width, int32_t block, const float *signs, const float *mix,
                     int32_t kernel) {
  if (x == nullptr) return rl::fail("no rows were given");
  return rl::turn_rows(x, rows, width, block, signs, mix, kernel);
}

int32_t rl_round_rows(const float *w, int32_t rows, int32_t width, const rl_round_tables *tables, uint8_t *codes,
                      uint8_t *index, float *scale, int32_t kernel) {
  if (w == nullptr || tables == nullptr || codes == nullptr || index == nullptr || scale == nullptr ||
      tables->errors == nullptr || tables->nearest == nullptr || tables->entries == nullptr || tables->share == nullptr)
    return rl::fail("rounding needs rows, tables and places for codes, indices and scales");
  return rl::round_rows(w, rows, width, *tables, codes, index, scale, kernel);
}

}  // extern "C"
