// Attention and the cache: rotary angles, keys and values written, and how the threads share what queries see.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "step.hpp"

namespace rl {
namespace {

constexpr std::int64_t kAttentionAlone = 1 << 15;  // rows x positions x heads x head_dim: below it costs less than handing over

// What the score bias of a head (rockledge.h) and a rotated query give.
void score_terms(const float *rotated, const float *bias, int turned, float scale, float *terms) {
  const int half = turned / 2;
  for (int i = 0; i < half; ++i) {
    const float x = rotated[i], y = rotated[half + i], b = bias[i], c = bias[half + i];
    terms[i] = (x * b + y * c) * scale;
    terms[half + i] = (y * b - x * c) * scale;
  }
}

// What the queries at a position are multiplied by.
float growth_at(const rl_op &op, int position) {
  if (op.real[3] == 0.0f) return 1.0f;
  // Of float: the double's log is newer than the C library that wheels promise to run with.
  const auto lengths = static_cast<float>(1.0 + std::floor(position / static_cast<double>(op.real[4])));
  return 1.0f + op.real[3] * std::log(lengths);
}

}  // namespace

// Rows of a sequence that follow each other share a walk over keys and values: up to `most_rows` of them, as attend_split
// takes them.
void Step::cut_tiles(const rl_op &op, int most_rows) {
  const rl_pool &pool = program_.pool_of(op);
  const int tokens = program_.shape().page_tokens;
  tiles_count_ = 0;
  for (int r = 0, rows = 0; r < rows_of(op); ++r, ++rows) {
    const int position = batch_.positions[r];
    const bool follows = r > 0 && rows < most_rows && batch_.sequences[r] == batch_.sequences[r - 1] &&
                         position == batch_.positions[r - 1] + 1 && position % tokens != 0 && on_npu(r) == on_npu(r - 1) &&
                         first_seen(pool, position) / tokens == first_seen(pool, position - 1) / tokens;
    if (follows) continue;
    tiles_[static_cast<std::size_t>(tiles_count_++)] = r;
    rows = 0;
  }
  tiles_[static_cast<std::size_t>(tiles_count_)] = rows_of(op);
}

// A unit is a tile's KV head, or a split of one where those are too few.
Phase Step::attention_phase(const rl_op &op) {
  const int rows = rows_of(op), kv_heads = program_.shape().kv_heads, threads = threads_.threads();
  const std::int64_t pairs = std::int64_t{rows} * kv_heads, wanted = std::int64_t{kPartsPerThread} * threads;
  std::int64_t positions = 0;
  int splits = 0;
  tiles_count_ = 0;
  for (int r = 0; r < rows; ++r) {
    if (on_npu(r)) continue;
    const int position = batch_.positions[r], seen = first_seen(program_.pool_of(op), position);
    positions += position + 1 - seen;
    splits = std::max(splits, position / kSplit - seen / kSplit + 1);
  }
  if (positions == 0) return Phase{0, 1};
  if (threads == 1 || positions * program_.shape().heads * program_.shape().head_dim < kAttentionAlone) {
    cut_tiles(op, kTileRows);
    return Phase{0, 1};
  }
  if (splits > 1 && pairs < wanted)
    splits_ = splits;
  else
    splits = 1;
  cut_tiles(op, static_cast<int>(std::clamp<std::int64_t>(pairs * splits / wanted, 1, kTileRows)));
  return Phase{static_cast<std::uint32_t>(tiles_count_ * kv_heads * splits), 1};
}

// Cosines and sines of this step's positions, the angle rounded to fp32 as the float models do.
void Step::compute_angles() {
  float *out = floats_at(angles_offset_);
  for (std::size_t f = 0; f < program_.turnings().size(); ++f) {
    const Turning &turning = program_.turnings()[f];
    const int half = turning.turned / 2;
    float *table = out + static_cast<std::int64_t>(f) * sizes_.max_rows * program_.shape().head_dim;
    for (int r = 0; r < batch_.rows; ++r)
      for (int i = 0; i < half; ++i) {
        const double angle = static_cast<float>(batch_.positions[r]) * turning.frequencies[i];
        table[r * program_.shape().head_dim + i] = static_cast<float>(std::cos(angle)) * turning.factor;
        table[r * program_.shape().head_dim + half + i] = static_cast<float>(std::sin(angle)) * turning.factor;
      }
  }
  angles_ready_ = true;
}

const float *Step::angles_of(const float *frequencies) const {
  return floats_at(angles_offset_) +
         static_cast<std::int64_t>(program_.number_of(frequencies)) * sizes_.max_rows * program_.shape().head_dim;
}

const std::int32_t *Step::table(int pool, int sequence) const {
  return batch_.block_tables + (std::int64_t{pool} * batch_.sequences_count + sequence) * batch_.table_width;
}

void Step::rope_kv(const rl_op &op, int r, Scratch &scratch) {
  const int hd = program_.shape().head_dim;
  const KvLayer kv = program_.layer(op.dim[1], op.dim[0]);
  const float *x = at<float>(op.in[0], r);
  const float *angle =
      op.weight[0] == nullptr ? nullptr : angles_of(op.weight[0]) + static_cast<std::int64_t>(r) * hd;
  const int position = batch_.positions[r], slot = position % kv.page_tokens;
  const float growth = growth_at(op, position), term_scale = op.real[2] * op.real[1] * growth;
  std::int8_t *q = at<std::int8_t>(op.out[0], r);
  float *sq = at<float>(op.out[1], r);
  const float *bias = op.weight[kScoreBias];
  float *terms = bias == nullptr ? nullptr : at<float>(op.out[2], r);
  const bool whole = op.dim[kWhole] != 0;
  float inverse = 0.0f;
  // The turn of the first of `heads` heads from x on; that of head h has its gain `step` further for each.
  const auto turn_of = [&](const float *gain, int heads) {
    if (whole && gain != nullptr) inverse = program_.kernels().inverse_root(x, heads * hd, op.real[0]);
    return HeadTurn{gain, op.real[0], whole ? &inverse : nullptr, angle, op.dim[kTurned]};
  };
  const int step = whole ? hd : 0;
  HeadTurn turn = turn_of(op.weight[1], program_.shape().heads);
  for (int h = 0; h < program_.shape().heads; ++h, x += hd) {
    program_.kernels().head_quant(x, hd, kv.head_stride, turn, q + h * kv.head_stride, sq + h, scratch);
    sq[h] *= growth;
    if (turn.gain != nullptr) turn.gain += step;
    if (bias != nullptr)
      score_terms(scratch.row, bias + h / (program_.shape().heads / program_.shape().kv_heads) * hd, turn.turned, term_scale,
                  terms + h * hd);
  }

  std::uint8_t *page = kv.base + table(op.dim[1], batch_.sequences[r])[position / kv.page_tokens] * kv.page_bytes;
  const std::int64_t tokens = std::int64_t{kv.kv_heads} * kv.page_tokens;
  std::int8_t *keys = reinterpret_cast<std::int8_t *>(page), *values = keys + tokens * kv.head_stride;
  float *key_scales = reinterpret_cast<float *>(values + tokens * kv.head_stride), *value_scales = key_scales + tokens;
  auto *head = reinterpret_cast<std::int8_t *>(scratch.attention);
  turn = turn_of(op.weight[2], program_.shape().kv_heads);
  for (int h = 0; h < program_.shape().kv_heads; ++h, x += hd) {
    const std::int64_t entry = h * kv.page_tokens + slot;
    program_.kernels().head_quant(x, hd, kv.head_stride, turn, head, key_scales + entry, scratch);
    if (turn.gain != nullptr) turn.gain += step;
    std::int8_t *lane = keys + entry / kKeys * kKeys * kv.head_stride + entry % kKeys * kQuad;
    for (int i = 0; i < kv.head_stride; i += kQuad) std::memcpy(lane + i * kKeys, head + i, kQuad);
  }
  for (int h = 0; h < program_.shape().kv_heads; ++h, x += hd) {
    const std::int64_t entry = h * kv.page_tokens + slot;
    program_.kernels().head_quant(x, hd, kv.head_stride, HeadTurn{}, head, value_scales + entry, scratch);
    std::int8_t *lane = values + std::int64_t{h} * kv.page_tokens * kv.head_stride + slot / kQuad * kQuad * kColumns + slot % kQuad;
    for (int c = 0; c < kv.head_stride; c += kColumns, lane += std::int64_t{kv.page_tokens} * kColumns)
      for (int i = 0; i < kColumns; ++i) lane[i * kQuad] = head[c + i];
  }
}

AttentionTask Step::attention_task(const rl_op &op, int r) const {
  const float *bias = op.weight[kScoreBias], *terms = nullptr, *angles = nullptr, *starts = nullptr;
  int turned = 0;
  if (bias != nullptr) {
    const std::size_t number = program_.number_of(op.weight[0]);
    turned = program_.turnings()[number].turned;
    terms = at<float>(op.in[2], r);
    angles = program_.split_angles(number);
    starts = program_.split_starts(number);
  }
  return AttentionTask{program_.layer(op.dim[1], op.dim[0]),
                       at<std::int8_t>(op.in[0], r),
                       at<float>(op.in[1], r),
                       table(op.dim[1], batch_.sequences[r]),
                       first_seen(program_.pool_of(op), batch_.positions[r]),
                       batch_.positions[r],
                       program_.shape().heads,
                       program_.shape().head_dim,
                       op.real[0],
                       op.real[1],
                       terms,
                       bias,
                       angles,
                       starts,
                       turned};
}

// The tasks of a tile's rows; gives how many.
int Step::tile_tasks(const rl_op &op, int tile, AttentionTask *tasks) const {
  const int first = tiles_[static_cast<std::size_t>(tile)], end = tiles_[static_cast<std::size_t>(tile) + 1];
  for (int r = first; r < end; ++r) tasks[r - first] = attention_task(op, r);
  return end - first;
}

// All splits of one tile and KV head.
void Step::attend_tile(const rl_op &op, std::uint32_t unit, Scratch &scratch) {
  const rl_shape &shape = program_.shape();
  const Kernels &kernels = program_.kernels();
  const int tile = static_cast<int>(unit) / shape.kv_heads, head = static_cast<int>(unit) % shape.kv_heads;
  if (on_npu(tiles_[static_cast<std::size_t>(tile)])) return;
  AttentionTask tasks[kTileRows];
  const int rows = tile_tasks(op, tile, tasks), group = shape.heads / shape.kv_heads;
  const std::int64_t floats = partial_floats(group, program_.head_stride());
  float *state = scratch.partial, *next = state + kTileRows * floats;
  const int first = tasks->first / kSplit;
  kernels.attend_split(tasks, rows, head, first, state, floats, scratch);
  for (int s = first + 1; s <= tasks->position / kSplit; ++s) {
    kernels.attend_split(tasks, rows, head, s, next, floats, scratch);
    for (int r = 0; r < rows; ++r) kernels.attend_fold(tasks[r], state + r * floats, next + r * floats);
  }
  for (int r = 0; r < rows; ++r)
    kernels.attend_finish(tasks[r], state + r * floats,
                          at<float>(op.out[0], tiles_[static_cast<std::size_t>(tile)] + r) + head * group * shape.head_dim);
}

// One thread does all that the NPU leaves.
void Step::attend_alone(const rl_op &op, Scratch &scratch) {
  for (int u = 0; u < tiles_count_ * program_.shape().kv_heads; ++u) attend_tile(op, static_cast<std::uint32_t>(u), scratch);
}

// One split of one tile and KV head; merge_parts folds them in the order that attend_tile has.
void Step::attend_part(const rl_op &op, std::uint32_t unit, Scratch &scratch) {
  const rl_shape &shape = program_.shape();
  const int pair = static_cast<int>(unit) / splits_, tile = pair / shape.kv_heads, head = pair % shape.kv_heads;
  if (on_npu(tiles_[static_cast<std::size_t>(tile)])) return;
  AttentionTask tasks[kTileRows];
  const int rows = tile_tasks(op, tile, tasks), split = static_cast<int>(unit) % splits_;
  if (tasks->first / kSplit + split > tasks->position / kSplit) return;
  const std::int64_t floats = partial_floats(shape.heads / shape.kv_heads, program_.head_stride());
  const int first = tiles_[static_cast<std::size_t>(tile)] * shape.kv_heads + head;
  program_.kernels().attend_split(tasks, rows, head, tasks->first / kSplit + split,
                                  floats_at(parts_offset_) + (std::int64_t{first} * splits_ + split) * floats,
                                  std::int64_t{shape.kv_heads} * splits_ * floats, scratch);
}

void Step::merge_parts(const rl_op &op) {
  const int group = program_.shape().heads / program_.shape().kv_heads;
  const std::int64_t floats = partial_floats(group, program_.head_stride());
  float *parts = floats_at(parts_offset_);
  for (int pair = 0; pair < rows_of(op) * program_.shape().kv_heads; ++pair) {
    const int r = pair / program_.shape().kv_heads;
    if (on_npu(r)) continue;
    const AttentionTask task = attention_task(op, r);
    float *first = parts + std::int64_t{pair} * splits_ * floats;
    const int splits = task.position / kSplit - task.first / kSplit + 1;
    for (int s = 1; s < splits; ++s) program_.kernels().attend_fold(task, first, first + s * floats);
    program_.kernels().attend_finish(task, first,
                            at<float>(op.out[0], r) + pair % program_.shape().kv_heads * group * program_.shape().head_dim);
  }
}

}  // namespace rl
