// Attention of one query row over the int8 KV cache, in splits of 512 positions merged in order.
//
// A split's result depends on the query, the split's cache entries and the query's position alone: scores in units of
// ln 2 in blocks of eight positions, one maximum, powers of two, whose products with the scales of the values are rounded
// to 14 bits of the largest, and integer sums over the values (formats/attention_spec.py). Where a window begins inside a
// split, the pages before it are left alone, and positions of its first page before it have weights of zero.
//
// The including file has defined, in this namespace, key_dots: up to kKeyBlocks blocks of eight keys times several queries,
// biased (bias.hpp), and value_dots: a block of columns times the weights of at most kValueQueries queries.
#pragma once

#include "bias.hpp"
#include "kernels.hpp"
#include "lanes.hpp"
#include "weights.hpp"

namespace rl::RL_ISA {

constexpr float kMasked = -3.0e38f;  // the score of a masked position: its power of two is 0
constexpr float kLog2E = 1.44269504f;

struct PageView {
  const std::int8_t *k, *v;        // as KvLayer has them
  const float *k_scale, *v_scale;  // [page_tokens]
};

// The page of a position.
RL_INLINE PageView page_at(const AttentionTask &task, int kv_head, int position) {
  const KvLayer &kv = task.kv;
  std::uint8_t *base = kv.base + task.pages[position / kv.page_tokens] * kv.page_bytes;
  const std::int64_t codes = static_cast<std::int64_t>(kv.kv_heads) * kv.page_tokens * kv.head_stride;
  const std::int64_t head = static_cast<std::int64_t>(kv_head) * kv.page_tokens;
  const float *scales = reinterpret_cast<const float *>(base + 2 * codes);
  const std::int8_t *k = reinterpret_cast<const std::int8_t *>(base) + head * kv.head_stride;
  return PageView{k, k + codes, scales + head, scales + kv.kv_heads * static_cast<std::int64_t>(kv.page_tokens) + head};
}

// use(page, its first position, how many of its positions lie before `begin`, how many before `end`) for every page from
// that of `begin` on.
template <typename Use>
RL_INLINE void each_page(const AttentionTask &task, int kv_head, int begin, int end, Use use) {
  const int tokens = task.kv.page_tokens;
  for (int p = begin & -tokens; p < end; p += tokens)
    use(page_at(task, kv_head, p), p, begin > p ? begin - p : 0, end - p < tokens ? end - p : tokens);
}

// Fetches keys, or values, of eight positions with their scales while something else is computed.
RL_INLINE void fetch_eight(const std::int8_t *codes, const float *scales, int head_stride, int i) {
  const char *p = reinterpret_cast<const char *>(codes) + static_cast<std::int64_t>(i) * head_stride;
  for (const char *end = p + kLanes * head_stride; p != end; p += 4 * 64)  // of whole tiles
    for (int line = 0; line < 4; ++line) __builtin_prefetch(p + line * 64, 0, 2);
  __builtin_prefetch(scales + i, 0, 2);
}

// The same for keys and values of the eight positions from one on.
[[gnu::noinline]] static void fetch_position(const AttentionTask &task, int kv_head, int position) {
  const PageView page = page_at(task, kv_head, position);
  const int i = position & (task.kv.page_tokens - 1);
  fetch_eight(page.k, page.k_scale, task.kv.head_stride, i);
  fetch_eight(page.v, page.v_scale, task.kv.head_stride, i);
}

// Queries of the heads that share a walk over the keys: codes [Heads][head_stride], and what each head's sums are
// multiplied by besides the key's scale.
template <int Heads>
struct Queries {
  const std::int8_t *codes;
  float scale[Heads];
  std::int32_t over[Heads];
};

// Scores of `Heads` heads over at most kKeyBlocks blocks of a page from position `i` on, of which the query sees `count`
// positions; `most` keeps the running maxima. If `biased`, what the score bias adds is already there.
template <int Heads>
RL_INLINE void key_scores(const PageView &page, const Queries<Heads> &q, int head_stride, int i, int count,
                          bool biased, float *scores, V8f *most) {
  alignas(32) std::int32_t sums[kKeyBlocks * Heads * kLanes];
  const int left = (count - i + kLanes - 1) / kLanes, blocks = left < kKeyBlocks ? left : kKeyBlocks;
  key_dots<Heads>(page.k + static_cast<std::int64_t>(i) * head_stride, blocks, q.codes, head_stride,
                  head_stride / kTile, sums);
  for (const std::int32_t *block = sums; block != sums + blocks * Heads * kLanes; block += Heads * kLanes, i += kLanes) {
    const V8f scale = load<V8f>(page.k_scale + i);
    for (int h = 0; h < Heads; ++h) {
      V8f score = to_float(exact(block + h * kLanes, q.over + h)) * (splat(q.scale[h]) * scale);
      float *at = scores + h * kScoreStride + i;
      if (biased) score += load<V8f>(at);
      store(at, score);
      if (count - i < kLanes) {
        score = load_part(at, count - i, kMasked);
        store(at, score);
      }
      most[h] = larger(score, most[h]);
    }
  }
}

// Scores of the block in which a window begins, after the `skip` first positions of the page. Kept out of the loop, which
// its code would slow down where there is no window.
template <int Heads>
[[gnu::noinline]] static void edge_scores(const PageView &page, const Queries<Heads> &q, int head_stride, int skip, int count,
                        bool biased, float *scores, V8f *most) {
  const int i = skip & -kLanes;
  V8f of_all[Heads];
  for (int h = 0; h < Heads; ++h) of_all[h] = splat(kMasked);
  key_scores<Heads>(page, q, head_stride, i, count < i + kLanes ? count : i + kLanes, biased, scores, of_all);
  for (int h = 0; h < Heads; ++h) {
    float *at = scores + h * kScoreStride + i;
    for (int before = 0; before < skip - i; ++before) at[before] = kMasked;
    most[h] = larger(load<V8f>(at), most[h]);
  }
}

// What the score bias adds to the scores of a split's positions from number `i` to number `count`, times `unit`.
template <int Heads>
static void bias_scores(const AttentionTask &task, int kv_head, int first_head, int split, int i, int count, float unit,
                        float *scores) {
  constexpr int kPairs = kMostHeadDim / 2;
  const int half = task.turned / 2;
  const float *bias = task.bias + kv_head * task.head_dim, *start = task.starts + split * task.turned;
  const float *angles[kPairs];
  float cosine[kPairs][Heads], sine[kPairs][Heads];
  int pairs = 0;
  for (int p = 0; p < half; ++p) {
    if (bias[p] == 0.0f && bias[half + p] == 0.0f) continue;
    angles[pairs] = task.angles + 2 * kSplit * p;
    for (int h = 0; h < Heads; ++h) {
      const float *terms = task.terms + (first_head + h) * task.head_dim;
      cosine[pairs][h] = (terms[p] * start[p] + terms[half + p] * start[half + p]) * unit;
      sine[pairs][h] = (terms[half + p] * start[p] - terms[p] * start[half + p]) * unit;
    }
    ++pairs;
  }
  for (; i < count; i += kLanes) {
    V8f added[Heads];
    for (int h = 0; h < Heads; ++h) added[h] = splat(0.0f);
    for (int p = 0; p < pairs; ++p) {
      const V8f c = load<V8f>(angles[p] + i), s = load<V8f>(angles[p] + kSplit + i);
      for (int h = 0; h < Heads; ++h) added[h] += splat(cosine[p][h]) * c + splat(sine[p][h]) * s;
    }
    for (int h = 0; h < Heads; ++h) store(scores + h * kScoreStride + i, added[h]);
  }
}

// Softly caps the scores of positions from `first` to `count`, but for what is masked, and gives them their unit; `most`
// keeps the running maxima.
template <int Heads>
static void cap_scores(float softcap, int first, int count, float *scores, V8f *most) {
  const float inverse = 1.0f / softcap, cap = softcap * kLog2E;
  for (int h = 0; h < Heads; ++h)
    for (int i = first; i < count; i += kLanes) {
      float *at = scores + h * kScoreStride + i;
      const V8f score = load<V8f>(at);
      const V8f capped = where_at_least(score, kMasked / 2, soft_capped(score, cap, inverse), score);
      store(at, capped);
      most[h] = larger(capped, most[h]);
    }
}

// Positions of a split that a row sees.
struct Span {
  int from, end;
};

// What a row sees of the page that begins at position p: positions skip .. count - 1 of it.
struct Seen {
  int skip, count;
};
RL_INLINE Seen seen_of(Span span, int p, int tokens) {
  return {span.from > p ? span.from - p : 0, span.end - p < tokens ? span.end - p : tokens};
}

// value_dots for 1 to kValueQueries queries.
template <int Queries = 1>
RL_INLINE void value_dots_of(int queries, const ValueRun *run, int runs, std::int64_t column, const std::int8_t *codes,
                             std::int32_t *sums) {
  if (queries == Queries)
    value_dots<Queries>(run, runs, column, codes, sums);
  else if constexpr (Queries < kValueQueries)
    value_dots_of<Queries + 1>(queries, run, runs, column, codes, sums);
}

// Values of the positions of a split that some of a tile's rows see: where they are, and their scales.
struct SplitValues {
  ValueRun runs[kSplit / kKeys];
  int pages;
  alignas(64) float scales[kSplit];  // 0 in those blocks of eight where nobody sees a position: there may be anything
};
static void find_values(const AttentionTask &task, int kv_head, int begin, Span seen, SplitValues &values) {
  values.pages = 0;
  each_page(task, kv_head, seen.from, seen.end, [&](const PageView &page, int p, int skip, int count) {
    const int from = skip / kLanes, blocks = (count + kLanes - 1) / kLanes - from;
    values.runs[values.pages++] = {page.v + from * kLanes * kColumns, blocks};
    float *scales = values.scales + (p - begin);
    for (int i = from * kLanes; i < count; i += kLanes) store(scales + i, load<V8f>(page.v_scale + i));
    for (int i = from * kLanes; i < skip; ++i) scales[i] = 0.0f;
    for (int i = count; i % kLanes != 0; ++i) scales[i] = 0.0f;
  });
}

// Columns by columns, so that those of a split stay in the first cache while the queries take turns: sums[query][column] =
// codes times values, times the query's factor. It is most of the work and reads little memory, so the data of the next
// split is fetched meanwhile, for pages that it has: `ahead` is the next of its positions, and `credit` says when.
static void sum_values(const AttentionTask &task, int kv_head, Span seen, const SplitValues &values,
                       const std::int8_t *codes, int queries, const float *factors, float *const *sums) {
  const int stride = task.kv.head_stride, tokens = task.kv.page_tokens, turns = stride / kColumns * queries;
  int ahead = (seen.from & -tokens) + kSplit, credit = 0;
  const int end = ahead + values.pages * tokens, last = task.position + 1 < end ? task.position + 1 : end;
  const int due = last > ahead ? (last - ahead + kLanes - 1) / kLanes : 0;
  for (int column = 0; column < stride; column += kColumns)
    for (int q = 0; q < queries; q += kValueQueries) {
      const int some = queries - q < kValueQueries ? queries - q : kValueQueries;
      for (credit += due * some; credit >= turns; credit -= turns, ahead += kLanes) fetch_position(task, kv_head, ahead);
      alignas(64) std::int32_t dots[kValueQueries * kColumns];
      value_dots_of(some, values.runs, values.pages, std::int64_t{column} * tokens, codes + q * kCodeStride, dots);
      for (int i = 0; i < some; ++i) {
        float *to = sums[q + i] + column;
        const V8f factor = splat(factors[q + i]);
        store(to, to_float(load<V8i>(dots + i * kColumns)) * factor);
        store(to + kLanes, to_float(load<V8i>(dots + i * kColumns + kLanes)) * factor);
      }
    }
}

template <int Heads>
static void split_heads(const AttentionTask *rows, int count, int kv_head, int first_head, int split, float *partial,
                        std::int64_t apart, Scratch &scratch) {
  constexpr int kRowScores = Heads * kScoreStride;
  const AttentionTask &task = rows[count - 1];  // no row sees further
  const KvLayer &kv = task.kv;
  const int stride = kv.head_stride, tokens = kv.page_tokens, begin = split * kSplit;
  float *scores = scratch.attention;  // [rows][Heads][kScoreStride]
  Span spans[kTileRows] = {};
  Queries<Heads> queries[kTileRows];
  V8f most[kTileRows][Heads];
  const bool biased = task.terms != nullptr;
  const float unit = task.softcap == 0.0f ? kLog2E : 1.0f;  // capping comes before it
  for (int r = 0; r < count; ++r) {
    const AttentionTask &row = rows[r];
    const int end = row.position + 1;
    spans[r] = {row.first > begin ? row.first : begin, end < begin + kSplit ? end : begin + kSplit};
    Queries<Heads> &q = queries[r];
    q.codes = row.q + first_head * stride;
    for (int h = 0; h < Heads; ++h) q.scale[h] = row.sq[first_head + h] * row.scale * unit;
    excess_of(q.codes, stride, stride / kTile, Heads, q.over);
    if (biased)
      bias_scores<Heads>(row, kv_head, first_head, split, (spans[r].from - begin) & -kLanes, spans[r].end - begin, unit,
                         scores + r * kRowScores);
    for (int h = 0; h < Heads; ++h) most[r][h] = splat(kMasked);
  }
  const Span first = spans[0], last = spans[count - 1];
  each_page(task, kv_head, first.from, last.end, [&](const PageView &page, int p, int, int) {
    const PageView ahead = page_at(task, kv_head, p + 2 * tokens <= task.position ? p + 2 * tokens : p);
    // No page before this one has fetched its keys and values.
    const bool fetch = p - kSplit + tokens <= rows[0].first;
    for (int r = 0; r < count; ++r) {
      const Seen seen = seen_of(spans[r], p, tokens);
      float *at = scores + r * kRowScores + (p - begin);
      if (seen.skip % kLanes != 0)
        edge_scores<Heads>(page, queries[r], stride, seen.skip, seen.count, biased, at, most[r]);
      for (int i = (seen.skip + kLanes - 1) & -kLanes; i < seen.count; i += kKeyBlocks * kLanes) {
        for (int j = i; fetch && r == 0 && j < i + kKeyBlocks * kLanes && j < seen.count; j += kLanes) {
          fetch_eight(page.v, page.v_scale, stride, j);
          fetch_eight(ahead.k, ahead.k_scale, stride, j);
        }
        key_scores<Heads>(page, queries[r], stride, i, seen.count, biased, at, most[r]);
      }
    }
  });
  SplitValues values;
  find_values(task, kv_head, begin, {first.from, last.end}, values);
  const auto first_block = [&](Span span) { return (span.from - begin) & -kLanes; };
  const auto last_block = [&](Span span) { return (span.end - begin + kLanes - 1) & -kLanes; };
  float *sums[kTileRows * Heads], factors[kTileRows * Heads];
  for (int r = 0; r < count; ++r) {
    if (task.softcap != 0.0f) {
      for (int h = 0; h < Heads; ++h) most[r][h] = splat(kMasked);
      cap_scores<Heads>(task.softcap, first_block(spans[r]), spans[r].end - begin, scores + r * kRowScores, most[r]);
    }
    for (int h = 0; h < Heads; ++h) {
      const int query = r * Heads + h;
      sums[query] = partial + r * apart + h * (stride + kPartialExtra);
      factors[query] =
          code_weights(scores + query * kScoreStride, values.scales, first_block(spans[r]), last_block(spans[r]),
                       first_block(first), last_block(last), maximum(most[r][h]), sums[query] + stride);
    }
  }
  const auto *codes = reinterpret_cast<const std::int8_t *>(scores) + 2 * first_block(first);
  sum_values(task, kv_head, {first.from, last.end}, values, codes, count * Heads, factors, sums);
}

static void attend_split(const AttentionTask *rows, int count, int kv_head, int split, float *partial, std::int64_t apart,
                         Scratch &scratch) {
  const int group = rows->heads / rows->kv.kv_heads;
  for (int h = 0; h < group; h += kGroupHeads) {
    const int head = kv_head * group + h;
    float *out = partial + h * (rows->kv.head_stride + kPartialExtra);
    switch (group - h) {
      case 1: split_heads<1>(rows, count, kv_head, head, split, out, apart, scratch); break;
      case 2: split_heads<2>(rows, count, kv_head, head, split, out, apart, scratch); break;
      case 3: split_heads<3>(rows, count, kv_head, head, split, out, apart, scratch); break;
      default: split_heads<4>(rows, count, kv_head, head, split, out, apart, scratch); break;
    }
  }
}

static void attend_fold(const AttentionTask &task, float *before, const float *next) {
  const int group = task.heads / task.kv.kv_heads, stride = task.kv.head_stride;
  for (int h = 0; h < group; ++h, before += stride + kPartialExtra, next += stride + kPartialExtra) {
    const float top = next[stride] > before[stride] ? next[stride] : before[stride];
    const float keep = power_of_two(before[stride] - top), add = power_of_two(next[stride] - top);
    before[stride] = top;
    before[stride + 1] = before[stride + 1] * keep + next[stride + 1] * add;
    for (int c = 0; c < stride; c += kLanes)
      store(before + c, load<V8f>(before + c) * splat(keep) + load<V8f>(next + c) * splat(add));
  }
}

static void attend_finish(const AttentionTask &task, const float *partial, float *y) {
  const int group = task.heads / task.kv.kv_heads, stride = task.kv.head_stride;
  for (int h = 0; h < group; ++h, partial += stride + kPartialExtra, y += task.head_dim)
    each_eight(task.head_dim, [&](int c, auto n) {
      store_part(y + c, load<V8f>(partial + c) / splat(partial[stride + 1]), n);
    });
}

}  // namespace rl::RL_ISA
