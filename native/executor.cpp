// Runs a step: which operations the threads share and in what units, and which one thread does alone.
#include <algorithm>
#include <cstring>

#include "clock.hpp"
#include "draw.hpp"
#include "error.hpp"
#include "step.hpp"

namespace rl {
namespace {

// Below these, handing work to other threads costs more than the work.
constexpr std::int64_t kRowFloatsAlone = 4096;       // rows x width of a row operation
constexpr std::int64_t kLinearGrain = 16 * 1024;     // bytes of codes of the smallest chunk of one or two rows
constexpr int kLogitsPart = 8192;                    // logits of a row that a thread changes at a time
constexpr std::uint32_t kRowsOfLine = 4;                       // that share a cache line in the NPU's input

}  // namespace

int Step::run(const rl_batch &batch, int first, int last) {
  const int count = static_cast<int>(program_.ops().size());
  if (last == -1) last = count;
  if (first < 0 || last < first || last > count)
    return fail("operations %d to %d cannot be run; the program has %d", first, last, count);
  if (busy_.exchange(true)) return fail("this step is already running; wait for it, or use another one");
  bool good = check_batch(batch, first, last) == 0;
  if (good) {
    batch_ = batch;
    logits_ = batch.draws == nullptr ? batch.logits : floats_at(logits_offset_);
    first_ = first;
    current_ = first - 1;
    end_ = last;
    begun_ = 0;
    begin_offloads();
    if (stream_) stream_->begin(first, last);
    threads_.run(*this);
    if (stream_) stream_->end();
    if (cut_off_) {
      cut_off_ = good = false;
      fail("the NPU failed in a part of a step, whose inputs are gone; run the step from its first operation");
    }
  }
  const bool failed = file_failed_;
  file_failed_ = false;
  busy_.store(false);
  if (failed) {
    fail("the weights could not be read; try again");
    return RL_FILE_FAILED;
  }
  return good ? 0 : -1;
}

// The current operation is done: the next one begins.
void Step::step_on() {
  if (times_ != nullptr) {
    const std::int64_t now = nanoseconds();
    if (begun_ != 0) times_[current_] += now - begun_;
    begun_ = now;
  }
  ++current_;
}

int Step::rows_of(const rl_op &op) const {
  return op.on_logits != 0 || op.code == RL_GATHER ? batch_.logit_count : batch_.rows;
}

// What a thread does alone costs no hand-over: small operations run here, one after another.
Phase Step::next(int thread) {
  Scratch &scratch = scratch_[static_cast<std::size_t>(thread)];
  if (current_ >= 0 && splits_ > 0) merge_parts(current_op());
  splits_ = 0;
  if (drawing_) {
    drawing_ = false;
    return Phase{0, 1};
  }
  if (offloading_) {
    const Phase phase = offload_phase();
    if (phase.units > 0) return phase;
  }
  if (attending_) {
    Phase phase = npu_attention_phase();
    if (phase.units == 0) phase = attention_phase(current_op());
    if (phase.units > 0) return phase;
    attend_alone(current_op(), scratch);
  }
  for (step_on(); current_ < end_; step_on()) {
    const rl_op &op = current_op();
    if (stream_ && !stream_->step_to(current_)) {
      file_failed_ = true;
      angles_ready_ = false;
      return Phase{0, 1};
    }
    if (op.code == RL_ROPE_KV && !angles_ready_) compute_angles();
    const bool offloaded = offloads_ && begin_offload();
    const Phase phase = offloaded ? offload_phase() : phase_of(op);
    if (phase.units > 0) return phase;
    if (offloaded) continue;
    if (op.code == RL_ATTENTION)
      attend_alone(op, scratch);
    else
      for (int r = 0; r < rows_of(op); ++r) row(op, r, scratch);
  }
  angles_ready_ = false;
  return draw_rows(scratch);
}

// After the last operation: a row is a unit.
Phase Step::draw_rows(Scratch &scratch) {
  if (batch_.draws == nullptr || batch_.logit_count == 0) return Phase{0, 1};
  if (threads_.threads() > 1 && batch_.logit_count > 1) {
    drawing_ = true;
    return Phase{static_cast<std::uint32_t>(batch_.logit_count), 1};
  }
  for (int r = 0; r < batch_.logit_count; ++r) draw(logits_of(r), program_.vocab(), *batch_.draws[r], scratch.drawing);
  return Phase{0, 1};
}

// How the threads share an operation; no units when one thread should do all its rows.
Phase Step::phase_of(const rl_op &op) {
  const int rows = rows_of(op);
  if (rows == 0) return Phase{0, 1};
  if (op.code == RL_LINEAR) {
    const auto first = static_cast<std::size_t>(op.first_band);
    const rl_band &band = program_.bands()[first];
    const std::int64_t strip_bytes = std::int64_t{kStrip} * band.cols * band.bits / 8;
    const std::int64_t grain = rows > 2 ? kBlockStrips : kLinearGrain / strip_bytes;
    return Phase{static_cast<std::uint32_t>(program_.strips_before(first + static_cast<std::size_t>(op.bands)) -
                                            program_.strips_before(first)),
                 static_cast<std::uint32_t>(std::max<std::int64_t>(1, grain))};
  }
  if (op.code == RL_ATTENTION) {
    find_runs(op);
    const Phase phase = attending_ ? npu_attention_phase() : Phase{0, 1};
    return phase.units > 0 ? phase : attention_phase(op);
  }
  if (op.code == RL_LOGITS) {
    if (threads_.threads() == 1 || std::int64_t{rows} * program_.vocab() < kRowFloatsAlone) return Phase{0, 1};
    return Phase{static_cast<std::uint32_t>(rows * logits_parts()), 1};
  }
  const int width = op.code == RL_EMBED ? program_.bands()[static_cast<std::size_t>(op.first_band)].cols
                                        : program_.buffers()[static_cast<std::size_t>(op.in[0])].width;
  if (threads_.threads() == 1 || rows == 1 || std::int64_t{rows} * width < kRowFloatsAlone) return Phase{0, 1};
  // Keys and values of neighbouring positions share cache lines too.
  const bool many = op.code == RL_ROPE_KV && rows >= 4 * kKeys * threads_.threads();
  return Phase{static_cast<std::uint32_t>(rows), many ? std::uint32_t{kKeys} : feeding_ ? kRowsOfLine : 1U};
}

void Step::work(std::uint32_t first, std::uint32_t count, int thread) {
  Scratch &scratch = scratch_[static_cast<std::size_t>(thread)];
  if (drawing_) {
    for (std::uint32_t u = first; u < first + count; ++u) {
      const int r = static_cast<int>(u);
      draw(logits_of(r), program_.vocab(), *batch_.draws[r], scratch.drawing);
    }
    return;
  }
  const rl_op &op = current_op();
  if (offloading_) return offload_work(op, first, count, thread);
  if (attending_) return npu_attention_work(op, first, count, scratch);
  switch (op.code) {
    case RL_LINEAR: linear(op, first, count, scratch); break;
    case RL_ATTENTION:
      for (std::uint32_t u = first; u < first + count; ++u) {
        if (splits_ > 0)
          attend_part(op, u, scratch);
        else
          attend_tile(op, u, scratch);
      }
      break;
    case RL_LOGITS:
      for (std::uint32_t u = first; u < first + count; ++u) logits_part(op, static_cast<int>(u));
      break;
    default:
      for (std::uint32_t r = first; r < first + count; ++r) row(op, static_cast<int>(r), scratch);
  }
}

QuantOut Step::quant_out(const rl_op &op, int row) const {
  if (feeding_) {
    QuantOut out = npu_row(fed_, 0, row);
    out.scale = at<float>(op.out[1], row);
    return out;
  }
  const rl_buffer &q = program_.buffers()[static_cast<std::size_t>(op.out[0])];
  return QuantOut{at<std::int8_t>(op.out[0], row), at<float>(op.out[1], row),
                  static_cast<std::int32_t>(round_up(q.width, kTile)), q.planes, 0};
}

void Step::row(const rl_op &op, int r, Scratch &scratch) {
  const auto x = [&](int row) { return at<float>(op.in[0], row); };
  const auto width = [&] { return program_.buffers()[static_cast<std::size_t>(op.in[0])].width; };
  const auto y = [&] {
    return op.out[0] == kStepLogits ? logits_of(r) : at<float>(op.out[0], r);
  };
  switch (op.code) {
    case RL_EMBED: embed(op, r, scratch); break;
    case RL_NORM_QUANT:
      program_.kernels().norm_quant(x(r), width(), op.weight[0], op.real[0], op.dim[0], quant_out(op, r), scratch);
      break;
    case RL_NORM: program_.kernels().norm(x(r), width(), op.weight[0], op.real[0], y()); break;
    case RL_NORM_ADD:
      program_.kernels().norm_add(x(r), at<float>(op.in[1], r), width(), op.weight[0], op.real[0], at<float>(op.out[0], r));
      break;
    case RL_QUANT: program_.kernels().quant(x(r), width(), op.dim[0], quant_out(op, r), scratch); break;
    case RL_GATED_QUANT:
      program_.kernels().gated_quant(x(r), x(r) + width() / 2, width() / 2, op.dim[1], op.dim[0], quant_out(op, r), scratch);
      break;
    case RL_ROTATE:
      program_.kernels().rotate(x(r), op.dim[0], op.dim[1], op.dim[2] != 0, op.weight[0], op.weight[1], op.weight[2], y(),
                       scratch);
      break;
    case RL_GATHER:
      std::memcpy(y(), x(batch_.logit_rows[r]), sizeof(float) * static_cast<std::size_t>(width()));
      break;
    case RL_ROPE_KV: rope_kv(op, r, scratch); break;
    case RL_LOGITS:
      for (int part = 0; part < logits_parts(); ++part) logits_part(op, r * logits_parts() + part);
      break;
    default: break;
  }
  if (feeding_) spread_row(r);
}

void Step::embed(const rl_op &op, int r, Scratch &scratch) {
  const int token = batch_.tokens[r];
  const auto end = [&](std::size_t b) { return program_.bands()[b].out_column + program_.bands()[b].rows; };
  auto number = static_cast<std::size_t>(op.first_band);
  while (token >= end(number)) ++number;
  const rl_band *band = &program_.bands()[number];
  int row = token - band->out_column;
  rl_band gathered;
  if (stream_) {
    const auto thread = static_cast<int>(&scratch - scratch_.data());
    if (!stream_->gather(number, row / kStrip, thread, gathered)) return;
    band = &gathered;
    row %= kStrip;
  }
  float *out = at<float>(op.out[0], r);
  program_.kernels().embed(*band, row, out, scratch);
  if (op.real[0] != 1.0f) program_.kernels().soft_cap(out, band->cols, op.real[0], 0.0f, out);
}

int Step::logits_parts() const { return (program_.vocab() + kLogitsPart - 1) / kLogitsPart; }

void Step::logits_part(const rl_op &op, int unit) {
  const int row = unit / logits_parts(), first = unit % logits_parts() * kLogitsPart;
  float *logits = logits_of(row) + first;
  program_.kernels().soft_cap(logits, std::min(kLogitsPart, program_.vocab() - first), op.real[0], op.real[1], logits);
}

LinearTask Step::linear_task(const rl_op &op, std::size_t number) const {
  const rl_buffer &in = program_.buffers()[static_cast<std::size_t>(op.in[0])];
  const rl_band &band = this->band(number);
  LinearTask task{};
  task.band = &band;
  task.x = at<std::int8_t>(op.in[0], 0);
  task.x_stride = static_cast<std::int32_t>(round_up(in.width, kTile));
  task.rows = rows_of(op);
  task.planes = in.planes;
  task.y_stride = op.out[0] == kStepLogits ? program_.vocab() : program_.buffers()[static_cast<std::size_t>(op.out[0])].width;
  task.sx = at<float>(op.in[1], 0);
  task.y = (op.out[0] == kStepLogits ? logits_ : at<float>(op.out[0], 0)) + band.out_column;
  if (op.in[2] >= 0) {
    task.residual = at<float>(op.in[2], 0) + band.out_column;
    task.residual_stride = program_.buffers()[static_cast<std::size_t>(op.in[2])].width;
  }
  return task;
}

void Step::linear(const rl_op &op, std::uint32_t first, std::uint32_t count, Scratch &scratch) {
  program_.each_band(op, static_cast<int>(first), static_cast<int>(count), [&](std::size_t band, int strip, int stop) {
    program_.kernels().linear(linear_task(op, band), strip, stop, scratch);
  });
}

}  // namespace rl
