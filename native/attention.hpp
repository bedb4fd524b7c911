// Attention of one query row over the int8 KV cache, in splits of 512 positions merged in order.
//
// A split's result depends on the query, the split's cache entries and the query's position alone: scores in blocks of
// eight positions, one maximum, exponentials, then the values summed position by position in fp32.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace rl::RL_ISA {

// The score of a position the query must not see: its exponential vanishes beside that of the maximum, which is 1.
constexpr float kMasked = -3.0e38f;

struct PageView {
  const std::int8_t *k, *v;      // [page_tokens][head_stride]
  const float *k_scale, *v_scale;  // [page_tokens]
};

RL_INLINE PageView page_view(const KvLayer &kv, int page, int kv_head) {
  std::uint8_t *base = kv.base + page * kv.page_bytes;
  const std::int64_t codes = static_cast<std::int64_t>(kv.kv_heads) * kv.page_tokens * kv.head_stride;
  const std::int64_t head = static_cast<std::int64_t>(kv_head) * kv.page_tokens;
  const float *scales = reinterpret_cast<const float *>(base + 2 * codes);
  const std::int8_t *k = reinterpret_cast<const std::int8_t *>(base) + head * kv.head_stride;
  return PageView{k, k + codes, scales + head, scales + kv.kv_heads * static_cast<std::int64_t>(kv.page_tokens) + head};
}

// Scores of one head over positions of one page, then their running maximum.
RL_INLINE V8f page_scores(const PageView &page, const std::int8_t *q, int head_stride, float q_scale, int count,
                          float *scores, V8f most) {
  alignas(32) std::int32_t sums[kLanes];
  for (int i = 0; i < count; i += kLanes) {
    dot8(page.k + static_cast<std::int64_t>(i) * head_stride, head_stride, q, head_stride / kTile, sums);
    V8f score = to_float(load<V8i>(sums)) * (splat(q_scale) * load<V8f>(page.k_scale + i));
    store(scores + i, score);
    if (count - i < kLanes) {
      score = load_part(scores + i, count - i, kMasked);
      store(scores + i, score);
    }
    most = larger(score, most);
  }
  return most;
}

// acc[h][0..15] of `Heads` heads += weight[h][i] * value[i], i rising over the positions of one page.
template <int Heads>
RL_INLINE void add_values(const PageView &page, int head_stride, int column, int count, const float *weights,
                          V8f (&acc)[Heads][2]) {
  const std::int8_t *v = page.v + column;
  for (int i = 0; i < count; ++i, v += head_stride) {
    const V8f a = to_float(widen(v));
    const V8f b = to_float(widen(v + kLanes));
    for (int h = 0; h < Heads; ++h) {
      const V8f w = splat(weights[h * kSplit + i]);
      acc[h][0] += w * a;
      acc[h][1] += w * b;
    }
  }
}

template <int Heads>
static void split_heads(const AttentionTask &task, int kv_head, int first_head, int split, float *partial,
                        Scratch &scratch) {
  const KvLayer &kv = task.kv;
  const int stride = kv.head_stride, begin = split * kSplit;
  const int end = task.position + 1 < begin + kSplit ? task.position + 1 : begin + kSplit;
  float *scores = scratch.attention;  // [Heads][kSplit], then the padded queries
  std::int8_t *queries = reinterpret_cast<std::int8_t *>(scores + kGroupHeads * kSplit);
  const float root = 1.0f / __builtin_sqrtf(static_cast<float>(task.head_dim));
  for (int h = 0; h < Heads; ++h) {
    const std::int8_t *q = task.q + (first_head + h) * task.head_dim;
    std::memset(queries + h * stride, 0, static_cast<unsigned>(stride));
    std::memcpy(queries + h * stride, q, static_cast<unsigned>(task.head_dim));
  }
  V8f most[Heads];
  for (int h = 0; h < Heads; ++h) most[h] = splat(kMasked);
  for (int p = begin; p < end; p += kv.page_tokens) {
    const PageView page = page_view(kv, task.pages[p / kv.page_tokens], kv_head);
    const int count = end - p < kv.page_tokens ? end - p : kv.page_tokens;
    for (int h = 0; h < Heads; ++h)
      most[h] = page_scores(page, queries + h * stride, stride, task.sq[first_head + h] * root, count,
                            scores + h * kSplit + (p - begin), most[h]);
  }
  for (int h = 0; h < Heads; ++h) {
    float *row = scores + h * kSplit;
    const float top = maximum(most[h]);
    V8f total = splat(0.0f);
    for (int p = begin; p < end; p += kv.page_tokens) {
      const PageView page = page_view(kv, task.pages[p / kv.page_tokens], kv_head);
      const int count = end - p < kv.page_tokens ? end - p : kv.page_tokens;
      for (int i = 0; i < count; i += kLanes) {
        float *at = row + (p - begin) + i;
        const V8f e = exponential(load<V8f>(at) - splat(top));
        total += e;
        store(at, e * load<V8f>(page.v_scale + i));
      }
    }
    float *extra = partial + h * (stride + kPartialExtra) + stride;
    extra[0] = top;
    extra[1] = sum(total);
  }
  for (int column = 0; column < stride; column += 2 * kLanes) {
    V8f acc[Heads][2];
    for (int h = 0; h < Heads; ++h) acc[h][0] = acc[h][1] = splat(0.0f);
    for (int p = begin; p < end; p += kv.page_tokens) {
      const PageView page = page_view(kv, task.pages[p / kv.page_tokens], kv_head);
      const int count = end - p < kv.page_tokens ? end - p : kv.page_tokens;
      add_values<Heads>(page, stride, column, count, scores + (p - begin), acc);
    }
    for (int h = 0; h < Heads; ++h) {
      float *out = partial + h * (stride + kPartialExtra) + column;
      store(out, acc[h][0]);
      store(out + kLanes, acc[h][1]);
    }
  }
}

static void attend_split(const AttentionTask &task, int kv_head, int split, float *partial, Scratch &scratch) {
  const int group = task.heads / task.kv.kv_heads;
  for (int h = 0; h < group; h += kGroupHeads) {
    const int head = kv_head * group + h;
    float *out = partial + h * (task.kv.head_stride + kPartialExtra);
    switch (group - h) {
      case 1: split_heads<1>(task, kv_head, head, split, out, scratch); break;
      case 2: split_heads<2>(task, kv_head, head, split, out, scratch); break;
      case 3: split_heads<3>(task, kv_head, head, split, out, scratch); break;
      default: split_heads<4>(task, kv_head, head, split, out, scratch); break;
    }
  }
}

static void attend_fold(const AttentionTask &task, float *before, const float *next) {
  const int group = task.heads / task.kv.kv_heads, stride = task.kv.head_stride;
  for (int h = 0; h < group; ++h, before += stride + kPartialExtra, next += stride + kPartialExtra) {
    const float top = next[stride] > before[stride] ? next[stride] : before[stride];
    const float keep = exponential(before[stride] - top), add = exponential(next[stride] - top);
    before[stride] = top;
    before[stride + 1] = before[stride + 1] * keep + next[stride + 1] * add;
    for (int c = 0; c < stride; c += kLanes)
      store(before + c, load<V8f>(before + c) * splat(keep) + load<V8f>(next + c) * splat(add));
  }
}

static void attend_finish(const AttentionTask &task, const float *partial, float *y) {
  const int group = task.heads / task.kv.kv_heads, stride = task.kv.head_stride;
  for (int h = 0; h < group; ++h, partial += stride + kPartialExtra, y += task.head_dim)
    for (int c = 0; c < task.head_dim; c += kLanes)
      store(y + c, load<V8f>(partial + c) / splat(partial[stride + 1]));
}

}  // namespace rl::RL_ISA
