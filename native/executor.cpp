// Runs a step: which operations the threads share and in what units, and which one thread does alone.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "clock.hpp"
#include "draw.hpp"
#include "error.hpp"
#include "program.hpp"

namespace rl {
namespace {

// Below these, handing work to other threads costs more than the work.
constexpr std::int64_t kRowFloatsAlone = 4096;       // rows x width of a row operation
constexpr std::int64_t kAttentionAlone = 1 << 15;    // rows x positions x heads x head_dim
constexpr std::int64_t kLinearGrain = 16 * 1024;     // bytes of codes of the smallest chunk of one or two rows
constexpr int kLogitsPart = 8192;                    // logits of a row that a thread changes at a time
constexpr std::uint32_t kRowsOfLine = 4;                       // that share a cache line in the NPU's input

// What the score bias of a head (rockledge.h) and a rotated query give.
void score_terms(const float *rotated, const float *bias, int turned, float scale, float *terms) {
  const int half = turned / 2;
  for (int i = 0; i < half; ++i) {
    const float x = rotated[i], y = rotated[half + i], b = bias[i], c = bias[half + i];
    terms[i] = (x * b + y * c) * scale;
    terms[half + i] = (y * b - x * c) * scale;
  }
}

}  // namespace

int Program::run(const rl_step &step, int first, int last) {
  const int count = static_cast<int>(ops_.size());
  if (last == -1) last = count;
  if (first < 0 || last < first || last > count)
    return fail("operations %d to %d cannot be run; the program has %d", first, last, count);
  if (busy_.exchange(true)) return fail("this program is already running a step; wait for it, or use another program");
  bool good = check_step(step, first, last) == 0;
  if (good) {
    step_ = step;
    logits_ = step.draws == nullptr ? step.logits : reinterpret_cast<float *>(arena_.data() + logits_offset_);
    first_ = first;
    current_ = first - 1;
    end_ = last;
    begun_ = 0;
    begin_offloads();
    threads_.run(*this);
    if (cut_off_) {
      cut_off_ = good = false;
      fail("the NPU failed in a part of a step, whose inputs are gone; run the step from its first operation");
    }
  }
  busy_.store(false);
  return good ? 0 : -1;
}

// The current operation is done: the next one begins.
void Program::step_on() {
  if (times_ != nullptr) {
    const std::int64_t now = nanoseconds();
    if (begun_ != 0) times_[current_] += now - begun_;
    begun_ = now;
  }
  ++current_;
}

int Program::rows_of(const rl_op &op) const {
  return op.on_logits != 0 || op.code == RL_GATHER ? step_.logit_count : step_.rows;
}

// What a thread does alone costs no hand-over: small operations run here, one after another.
Phase Program::next(int thread) {
  Scratch &scratch = scratch_[static_cast<std::size_t>(thread)];
  if (current_ >= 0 && splits_ > 0) merge_parts(ops_[static_cast<std::size_t>(current_)]);
  splits_ = 0;
  if (drawing_) {
    drawing_ = false;
    return Phase{0, 1};
  }
  if (offloading_) {
    const Phase phase = offload_phase();
    if (phase.units > 0) return phase;
  }
  for (step_on(); current_ < end_; step_on()) {
    const rl_op &op = ops_[static_cast<std::size_t>(current_)];
    if (op.code == RL_ROPE_KV && !angles_ready_) compute_angles();
    const bool offloaded = offloads_ && begin_offload();
    const Phase phase = offloaded ? offload_phase() : phase_of(op);
    if (phase.units > 0) return phase;
    if (offloaded) continue;
    for (int r = 0; r < rows_of(op); ++r) row(op, r, scratch);
  }
  angles_ready_ = false;
  return draw_rows(scratch);
}

// After the last operation: a row is a unit.
Phase Program::draw_rows(Scratch &scratch) {
  if (step_.draws == nullptr || step_.logit_count == 0) return Phase{0, 1};
  if (threads_.threads() > 1 && step_.logit_count > 1) {
    drawing_ = true;
    return Phase{static_cast<std::uint32_t>(step_.logit_count), 1};
  }
  for (int r = 0; r < step_.logit_count; ++r) draw(logits_of(r), vocab_, *step_.draws[r], scratch.drawing);
  return Phase{0, 1};
}

// How the threads share an operation; no units when one thread should do all its rows.
Phase Program::phase_of(const rl_op &op) {
  const int rows = rows_of(op);
  if (rows == 0) return Phase{0, 1};
  if (op.code == RL_LINEAR) {
    const auto first = static_cast<std::size_t>(op.first_band);
    const rl_band &band = bands_[first];
    const std::int64_t strip_bytes = std::int64_t{kStrip} * band.cols * band.bits / 8;
    const std::int64_t grain = rows > 2 ? kBlockStrips : kLinearGrain / strip_bytes;
    return Phase{static_cast<std::uint32_t>(strips_before_[first + static_cast<std::size_t>(op.bands)] -
                                            strips_before_[first]),
                 static_cast<std::uint32_t>(std::max<std::int64_t>(1, grain))};
  }
  if (op.code == RL_ATTENTION) {
    const std::int64_t pairs = std::int64_t{rows} * shape_.kv_heads;
    std::int64_t positions = 0;
    int splits = 0;
    for (int r = 0; r < rows; ++r) {
      const int position = step_.positions[r], seen = first_seen(pool_of(op), position);
      positions += position + 1 - seen;
      splits = std::max(splits, position / kSplit - seen / kSplit + 1);
    }
    if (threads_.threads() == 1 || positions * shape_.heads * shape_.head_dim < kAttentionAlone) return Phase{0, 1};
    if (splits > 1 && pairs < kPartsPerThread * threads_.threads()) {
      splits_ = splits;
      return Phase{static_cast<std::uint32_t>(pairs * splits), 1};
    }
    return Phase{static_cast<std::uint32_t>(pairs), 1};
  }
  if (op.code == RL_LOGITS) {
    if (threads_.threads() == 1 || std::int64_t{rows} * vocab_ < kRowFloatsAlone) return Phase{0, 1};
    return Phase{static_cast<std::uint32_t>(rows * logits_parts()), 1};
  }
  const int width = op.code == RL_EMBED ? bands_[static_cast<std::size_t>(op.first_band)].cols
                                        : buffers_[static_cast<std::size_t>(op.in[0])].width;
  if (threads_.threads() == 1 || rows == 1 || std::int64_t{rows} * width < kRowFloatsAlone) return Phase{0, 1};
  return Phase{static_cast<std::uint32_t>(rows), feeding_ ? kRowsOfLine : 1U};
}

void Program::work(std::uint32_t first, std::uint32_t count, int thread) {
  Scratch &scratch = scratch_[static_cast<std::size_t>(thread)];
  if (drawing_) {
    for (std::uint32_t u = first; u < first + count; ++u) {
      const int r = static_cast<int>(u);
      draw(logits_of(r), vocab_, *step_.draws[r], scratch.drawing);
    }
    return;
  }
  const rl_op &op = ops_[static_cast<std::size_t>(current_)];
  if (offloading_) return offload_work(op, first, count, thread);
  switch (op.code) {
    case RL_LINEAR: linear(op, first, count, scratch); break;
    case RL_ATTENTION:
      for (std::uint32_t u = first; u < first + count; ++u) {
        if (splits_ > 0)
          attend_part(op, u, scratch);
        else
          attend_row(op, u, scratch);
      }
      break;
    case RL_LOGITS:
      for (std::uint32_t u = first; u < first + count; ++u) logits_part(op, static_cast<int>(u));
      break;
    default:
      for (std::uint32_t r = first; r < first + count; ++r) row(op, static_cast<int>(r), scratch);
  }
}

QuantOut Program::quant_out(const rl_op &op, int row) const {
  if (feeding_) {
    QuantOut out = npu_row(fed_, 0, row);
    out.scale = at<float>(op.out[1], row);
    return out;
  }
  const rl_buffer &q = buffers_[static_cast<std::size_t>(op.out[0])];
  return QuantOut{at<std::int8_t>(op.out[0], row), at<float>(op.out[1], row),
                  static_cast<std::int32_t>(round_up(q.width, kTile)), q.planes, 0};
}

void Program::row(const rl_op &op, int r, Scratch &scratch) {
  const auto x = [&](int row) { return at<float>(op.in[0], row); };
  const auto width = [&] { return buffers_[static_cast<std::size_t>(op.in[0])].width; };
  const auto y = [&] {
    return op.out[0] == kStepLogits ? logits_of(r) : at<float>(op.out[0], r);
  };
  switch (op.code) {
    case RL_EMBED: embed(op, r, scratch); break;
    case RL_NORM_QUANT:
      kernels_->norm_quant(x(r), width(), op.weight[0], op.real[0], op.dim[0], quant_out(op, r), scratch);
      break;
    case RL_NORM: kernels_->norm(x(r), width(), op.weight[0], op.real[0], y()); break;
    case RL_NORM_ADD:
      kernels_->norm_add(x(r), at<float>(op.in[1], r), width(), op.weight[0], op.real[0], at<float>(op.out[0], r));
      break;
    case RL_QUANT: kernels_->quant(x(r), width(), op.dim[0], quant_out(op, r), scratch); break;
    case RL_GATED_QUANT:
      kernels_->gated_quant(x(r), x(r) + width() / 2, width() / 2, op.dim[1], op.dim[0], quant_out(op, r), scratch);
      break;
    case RL_ROTATE:
      kernels_->rotate(x(r), op.dim[0], op.dim[1], op.dim[2] != 0, op.weight[0], op.weight[1], op.weight[2], y(),
                       scratch);
      break;
    case RL_GATHER:
      std::memcpy(y(), x(step_.logit_rows[r]), sizeof(float) * static_cast<std::size_t>(width()));
      break;
    case RL_ROPE_KV: rope_kv(op, r, scratch); break;
    case RL_LOGITS:
      for (int part = 0; part < logits_parts(); ++part) logits_part(op, r * logits_parts() + part);
      break;
    case RL_ATTENTION:
      for (int h = 0; h < shape_.kv_heads; ++h)
        attend_row(op, static_cast<std::uint32_t>(r * shape_.kv_heads + h), scratch);
      break;
    default: break;
  }
  if (feeding_) spread_row(r);
}

void Program::embed(const rl_op &op, int r, Scratch &scratch) {
  const int token = step_.tokens[r];
  const rl_band *band = &bands_[static_cast<std::size_t>(op.first_band)];
  while (token >= band->out_column + band->rows) ++band;
  float *out = at<float>(op.out[0], r);
  kernels_->embed(*band, token - band->out_column, out, scratch);
  if (op.real[0] != 1.0f) kernels_->soft_cap(out, band->cols, op.real[0], 0.0f, out);
}

int Program::logits_parts() const { return (vocab_ + kLogitsPart - 1) / kLogitsPart; }

void Program::logits_part(const rl_op &op, int unit) {
  const int row = unit / logits_parts(), first = unit % logits_parts() * kLogitsPart;
  float *logits = logits_of(row) + first;
  kernels_->soft_cap(logits, std::min(kLogitsPart, vocab_ - first), op.real[0], op.real[1], logits);
}

LinearTask Program::linear_task(const rl_op &op, std::size_t number) const {
  const rl_buffer &in = buffers_[static_cast<std::size_t>(op.in[0])];
  const rl_band &band = bands_[number];
  LinearTask task{};
  task.band = &band;
  task.x = at<std::int8_t>(op.in[0], 0);
  task.x_stride = static_cast<std::int32_t>(round_up(in.width, kTile));
  task.rows = rows_of(op);
  task.planes = in.planes;
  task.y_stride = op.out[0] == kStepLogits ? vocab_ : buffers_[static_cast<std::size_t>(op.out[0])].width;
  task.sx = at<float>(op.in[1], 0);
  task.y = (op.out[0] == kStepLogits ? logits_ : at<float>(op.out[0], 0)) + band.out_column;
  if (op.in[2] >= 0) {
    task.residual = at<float>(op.in[2], 0) + band.out_column;
    task.residual_stride = buffers_[static_cast<std::size_t>(op.in[2])].width;
  }
  return task;
}

void Program::linear(const rl_op &op, std::uint32_t first, std::uint32_t count, Scratch &scratch) {
  each_band(op, static_cast<int>(first), static_cast<int>(count), [&](std::size_t band, int strip, int stop) {
    kernels_->linear(linear_task(op, band), strip, stop, scratch);
  });
}

// Cosines and sines of this step's positions, the angle rounded to fp32 as the float models do.
void Program::compute_angles() {
  float *out = reinterpret_cast<float *>(arena_.data() + angles_offset_);
  for (std::size_t f = 0; f < turnings_count_; ++f) {
    const Turning &turning = turnings_[f];
    const int half = turning.turned / 2;
    float *table = out + static_cast<std::int64_t>(f) * shape_.max_rows * shape_.head_dim;
    for (int r = 0; r < step_.rows; ++r)
      for (int i = 0; i < half; ++i) {
        const double angle = static_cast<float>(step_.positions[r]) * turning.frequencies[i];
        table[r * shape_.head_dim + i] = static_cast<float>(std::cos(angle)) * turning.factor;
        table[r * shape_.head_dim + half + i] = static_cast<float>(std::sin(angle)) * turning.factor;
      }
  }
  angles_ready_ = true;
}

// For the score bias: every position is a split's first and some positions more, and so are the angles.
void Program::compute_split_angles() {
  if (split_angles_floats_ == 0) return;
  float *angles = reinterpret_cast<float *>(arena_.data() + split_angles_offset_);
  for (std::size_t f = 0; f < turnings_count_; ++f, angles += split_angles_floats_) {
    const int turned = turnings_[f].turned, half = turned / 2;
    float *starts = angles + std::int64_t{kSplit} * turned;
    for (int i = 0; i < half; ++i) {
      const double frequency = turnings_[f].frequencies[i];
      for (int p = 0; p < kSplit; ++p) {
        angles[2 * kSplit * i + p] = static_cast<float>(std::cos(p * frequency));
        angles[2 * kSplit * i + kSplit + p] = static_cast<float>(std::sin(p * frequency));
      }
      for (int s = 0; s < max_splits_; ++s) {
        const double angle = static_cast<double>(s) * kSplit * frequency;
        starts[std::int64_t{s} * turned + i] = static_cast<float>(std::cos(angle));
        starts[std::int64_t{s} * turned + half + i] = static_cast<float>(std::sin(angle));
      }
    }
  }
}

std::size_t Program::number_of(const float *frequencies) const {
  std::size_t number = 0;
  while (number < turnings_count_ && turnings_[number].frequencies != frequencies) ++number;
  return number;
}

const float *Program::angles_of(const float *frequencies) const {
  return reinterpret_cast<const float *>(arena_.data() + angles_offset_) +
         static_cast<std::int64_t>(number_of(frequencies)) * shape_.max_rows * shape_.head_dim;
}

// What the queries at a position are multiplied by.
float Program::growth_at(const rl_op &op, int position) const {
  if (op.real[3] == 0.0f) return 1.0f;
  // Of float: the double's log is newer than the C library that wheels promise to run with.
  const auto lengths = static_cast<float>(1.0 + std::floor(position / static_cast<double>(op.real[4])));
  return 1.0f + op.real[3] * std::log(lengths);
}

const std::int32_t *Program::table(int pool, int sequence) const {
  return step_.block_tables + (std::int64_t{pool} * step_.sequences_count + sequence) * step_.table_width;
}

KvLayer Program::layer(int pool, int number) const {
  const auto p = static_cast<std::size_t>(pool);
  return KvLayer{kv_base_ + pool_offsets_[p] + number * page_bytes_ * pools_[p].pages,
                 page_bytes_,
                 shape_.page_tokens,
                 shape_.kv_heads,
                 shape_.head_dim,
                 head_stride_};
}

void Program::rope_kv(const rl_op &op, int r, Scratch &scratch) {
  const int hd = shape_.head_dim;
  const KvLayer kv = layer(op.dim[1], op.dim[0]);
  const float *x = at<float>(op.in[0], r);
  const float *angle =
      op.weight[0] == nullptr ? nullptr : angles_of(op.weight[0]) + static_cast<std::int64_t>(r) * hd;
  const int position = step_.positions[r], slot = position % kv.page_tokens;
  const float growth = growth_at(op, position), term_scale = op.real[2] * op.real[1] * growth;
  std::int8_t *q = at<std::int8_t>(op.out[0], r);
  float *sq = at<float>(op.out[1], r);
  const float *bias = op.weight[kScoreBias];
  float *terms = bias == nullptr ? nullptr : at<float>(op.out[2], r);
  const bool whole = op.dim[kWhole] != 0;
  float inverse = 0.0f;
  // The turn of the first of `heads` heads from x on; that of head h has its gain `step` further for each.
  const auto turn_of = [&](const float *gain, int heads) {
    if (whole && gain != nullptr) inverse = kernels_->inverse_root(x, heads * hd, op.real[0]);
    return HeadTurn{gain, op.real[0], whole ? &inverse : nullptr, angle, op.dim[kTurned]};
  };
  const int step = whole ? hd : 0;
  HeadTurn turn = turn_of(op.weight[1], shape_.heads);
  for (int h = 0; h < shape_.heads; ++h, x += hd) {
    kernels_->head_quant(x, hd, kv.head_stride, turn, q + h * kv.head_stride, sq + h, scratch);
    sq[h] *= growth;
    if (turn.gain != nullptr) turn.gain += step;
    if (bias != nullptr)
      score_terms(scratch.row, bias + h / (shape_.heads / shape_.kv_heads) * hd, turn.turned, term_scale,
                  terms + h * hd);
  }

  std::uint8_t *page = kv.base + table(op.dim[1], step_.sequences[r])[position / kv.page_tokens] * kv.page_bytes;
  const std::int64_t tokens = std::int64_t{kv.kv_heads} * kv.page_tokens;
  std::int8_t *keys = reinterpret_cast<std::int8_t *>(page), *values = keys + tokens * kv.head_stride;
  float *key_scales = reinterpret_cast<float *>(values + tokens * kv.head_stride), *value_scales = key_scales + tokens;
  auto *key = reinterpret_cast<std::int8_t *>(scratch.attention);
  turn = turn_of(op.weight[2], shape_.kv_heads);
  for (int h = 0; h < shape_.kv_heads; ++h, x += hd) {
    const std::int64_t entry = h * kv.page_tokens + slot;
    kernels_->head_quant(x, hd, kv.head_stride, turn, key, key_scales + entry, scratch);
    if (turn.gain != nullptr) turn.gain += step;
    std::int8_t *lane = keys + entry / kKeys * kKeys * kv.head_stride + entry % kKeys * kQuad;
    for (int i = 0; i < kv.head_stride; i += kQuad) std::memcpy(lane + i * kKeys, key + i, kQuad);
  }
  for (int h = 0; h < shape_.kv_heads; ++h, x += hd) {
    const std::int64_t entry = h * kv.page_tokens + slot;
    kernels_->head_quant(x, hd, kv.head_stride, HeadTurn{}, values + entry * kv.head_stride, value_scales + entry,
                         scratch);
  }
}

AttentionTask Program::attention_task(const rl_op &op, int r) const {
  const float *bias = op.weight[kScoreBias], *terms = nullptr, *angles = nullptr, *starts = nullptr;
  int turned = 0;
  if (bias != nullptr) {
    const std::size_t number = number_of(op.weight[0]);
    turned = turnings_[number].turned;
    terms = at<float>(op.in[2], r);
    angles = reinterpret_cast<const float *>(arena_.data() + split_angles_offset_) +
             static_cast<std::int64_t>(number) * split_angles_floats_;
    starts = angles + std::int64_t{kSplit} * turned;
  }
  return AttentionTask{layer(op.dim[1], op.dim[0]),
                       at<std::int8_t>(op.in[0], r),
                       at<float>(op.in[1], r),
                       table(op.dim[1], step_.sequences[r]),
                       first_seen(pool_of(op), step_.positions[r]),
                       step_.positions[r],
                       shape_.heads,
                       shape_.head_dim,
                       op.real[0],
                       op.real[1],
                       terms,
                       bias,
                       angles,
                       starts,
                       turned};
}

// All splits of one row and KV head.
void Program::attend_row(const rl_op &op, std::uint32_t unit, Scratch &scratch) {
  const int r = static_cast<int>(unit) / shape_.kv_heads, head = static_cast<int>(unit) % shape_.kv_heads;
  const AttentionTask task = attention_task(op, r);
  const int group = shape_.heads / shape_.kv_heads;
  float *next = scratch.partial + partial_floats(group, head_stride_);
  const int first = task.first / kSplit;
  kernels_->attend_split(task, head, first, scratch.partial, scratch);
  for (int s = first + 1; s <= task.position / kSplit; ++s) {
    kernels_->attend_split(task, head, s, next, scratch);
    kernels_->attend_fold(task, scratch.partial, next);
  }
  kernels_->attend_finish(task, scratch.partial, at<float>(op.out[0], r) + head * group * shape_.head_dim);
}

// One split of one row and KV head; merge_parts folds them in the order that attend_row has.
void Program::attend_part(const rl_op &op, std::uint32_t unit, Scratch &scratch) {
  const int pair = static_cast<int>(unit) / splits_;
  const AttentionTask task = attention_task(op, pair / shape_.kv_heads);
  const int split = task.first / kSplit + static_cast<int>(unit) % splits_;
  if (split > task.position / kSplit) return;
  float *parts = reinterpret_cast<float *>(arena_.data() + parts_offset_);
  kernels_->attend_split(task, pair % shape_.kv_heads, split,
                         parts + unit * partial_floats(shape_.heads / shape_.kv_heads, head_stride_), scratch);
}

void Program::merge_parts(const rl_op &op) {
  const int group = shape_.heads / shape_.kv_heads;
  const std::int64_t floats = partial_floats(group, head_stride_);
  float *parts = reinterpret_cast<float *>(arena_.data() + parts_offset_);
  for (int pair = 0; pair < rows_of(op) * shape_.kv_heads; ++pair) {
    const int r = pair / shape_.kv_heads;
    const AttentionTask task = attention_task(op, r);
    float *first = parts + std::int64_t{pair} * splits_ * floats;
    const int splits = task.position / kSplit - task.first / kSplit + 1;
    for (int s = 1; s < splits; ++s) kernels_->attend_fold(task, first, first + s * floats);
    kernels_->attend_finish(task, first,
                            at<float>(op.out[0], r) + pair % shape_.kv_heads * group * shape_.head_dim);
  }
}

}  // namespace rl
