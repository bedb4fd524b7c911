// Attention between the NPU's two products: scores and weights of one row from its sums of queries times keys, and partial
// values from those of weights times values. The floats are those of attention.hpp, operation by operation, so it makes no
// difference who multiplied (formats/npu_attention_spec.py).
//
// Layouts are those of npu/npu.h. Whatever is read adds to check sums (npu/product_check.hpp).
#pragma once

#include "attention.hpp"

namespace rl::RL_ISA {

// Scales of the keys of a split's positions, for the blocks of eight that a row sees.
static void find_key_scales(const AttentionTask &row, int kv_head, int begin, Span span, float *scales) {
  each_page(row, kv_head, span.from, span.end, [&](const PageView &page, int p, int skip, int count) {
    for (int i = skip & -kLanes; i < count; i += kLanes) store(scales + (p - begin) + i, load<V8f>(page.k_scale + i));
  });
}

// The scores of a block of which the query sees the positions from number `from` to `end` alone.
[[gnu::noinline]] static V8f mask_scores(float *scores, int from, int end) {
  for (int i = 0; i < kLanes; ++i)
    if (i < from || i >= end) scores[i] = kMasked;
  return load<V8f>(scores);
}

// Both planes of a query's codes [kSplit / 8][2][8] as the NPU takes them, vector by vector.
static void place_codes(const std::int8_t *codes, std::int8_t *to, std::int64_t atom_stride) {
  constexpr int kEight = kLanes;
  for (int k = 0; k < kSplit; k += kAtom, codes += 2 * kAtom, to += atom_stride) {
    std::memcpy(to, codes, kEight);
    std::memcpy(to + kEight, codes + 2 * kEight, kEight);
    std::memcpy(to + kAtom, codes + kEight, kEight);
    std::memcpy(to + kAtom + kEight, codes + 3 * kEight, kEight);
  }
}

static void npu_weights(const AttentionTask &row, int kv_head, int split, const NpuVectors &lane, int vector, float *partial,
                        std::uint64_t *checks, Scratch &scratch) {
  const int group = row.heads / row.kv.kv_heads, stride = row.kv.head_stride, begin = split * kSplit;
  const Span span{row.first > begin ? row.first : begin,
                  row.position + 1 < begin + kSplit ? row.position + 1 : begin + kSplit};
  const int from = span.from - begin, end = span.end - begin;
  const int first = from & -kLanes, last = (end + kLanes - 1) & -kLanes;
  const float unit = row.softcap == 0.0f ? kLog2E : 1.0f;  // capping comes before it
  alignas(64) float key_scales[kSplit];
  find_key_scales(row, kv_head, begin, span, key_scales);
  SplitValues values;
  find_values(row, kv_head, begin, span, values);
  float *scores = scratch.attention;
  for (int h = 0; h < group; ++h, ++vector, partial += stride + kPartialExtra) {
    const int head = kv_head * group + h;
    if (row.terms != nullptr) bias_scores<1>(row, kv_head, head, split, first, end, unit, scores);
    const V8f scale = splat(row.sq[head] * row.scale * unit);
    const std::int64_t upper = std::int64_t{4} * lane.score_tile;
    const std::int32_t *at = lane.scores + vector / lane.score_tile * std::int64_t{kSplit} * lane.score_tile +
                             vector % lane.score_tile * 4;
    V8f most = splat(kMasked);
    V4u64 check{};
    for (int i = 0; i < kSplit; i += kLanes, at += 2 * upper) {
      const V8i dots = load_halves(at, at + upper);
      check = plus_long_products(check, dots, load<V8i>(lane.factors + i));
      if (i < first || i >= last) continue;
      V8f score = to_float(dots) * (scale * load<V8f>(key_scales + i));
      if (row.terms != nullptr) score += load<V8f>(scores + i);
      store(scores + i, score);
      if (i < from || i + kLanes > end) score = mask_scores(scores + i, from - i, end - i);
      most = larger(score, most);
    }
    checks[h] = total(check);
    if (row.softcap != 0.0f) {
      most = splat(kMasked);
      cap_scores<1>(row.softcap, first, end, scores, &most);
    }
    partial[stride + kPartialFactor] =
        code_weights(scores, values.scales, first, last, 0, kSplit, maximum(most), partial + stride);
    const int high = 2 * vector;
    place_codes(reinterpret_cast<const std::int8_t *>(scores),
                lane.weights + high / lane.sum_tile * std::int64_t{kSplit} * lane.sum_tile + high % lane.sum_tile * kAtom,
                std::int64_t{kAtom} * lane.sum_tile);
  }
}

static void npu_values(const AttentionTask &row, const NpuVectors &lane, int vector, float *partial, std::uint64_t *checks) {
  const int group = row.heads / row.kv.kv_heads, stride = row.kv.head_stride;
  const std::int64_t upper = std::int64_t{4} * lane.sum_tile;
  for (int h = 0; h < group; ++h, ++vector, partial += stride + kPartialExtra) {
    const int first = 2 * vector;
    const std::int32_t *at = lane.sums + first / lane.sum_tile * std::int64_t{stride} * lane.sum_tile +
                             first % lane.sum_tile * 4;
    const V8f factor = splat(partial[stride + kPartialFactor]);
    V4u64 check_high{}, check_low{};
    for (int c = 0; c < stride; c += kLanes, at += 2 * upper) {
      const V8i high = load_halves(at, at + upper), low = load_halves(at + 4, at + 4 + upper);
      check_high = plus_long_products(check_high, high, load<V8i>(lane.factors + c));
      check_low = plus_long_products(check_low, low, load<V8i>(lane.factors + c));
      store(partial + c, to_float(plus(high << kPlaneBits, low)) * factor);
    }
    checks[2 * h] = total(check_high);
    checks[2 * h + 1] = total(check_low);
  }
}

}  // namespace rl::RL_ISA
