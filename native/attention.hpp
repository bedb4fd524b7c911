// Attention of one query row over the int8 KV cache, in splits of 512 positions merged in order.
//
// A split's result depends on the query, the split's cache entries and the query's position alone: scores in blocks of
// eight positions, one maximum, exponentials, then the values summed position by position in fp32. Where a window begins
// inside a split, the pages before it are left alone, and so are the values of the first page's positions before it.
//
// The including file has defined, in this namespace, key_dots: blocks of eight keys times several queries, biased
// (bias.hpp).
#pragma once

#include "bias.hpp"
#include "kernels.hpp"
#include "lanes.hpp"
#include "values.hpp"

namespace rl::RL_ISA {

// The score of a masked position: its exponential vanishes beside that of the maximum, which is 1.
constexpr float kMasked = -3.0e38f;

constexpr int kKeyBlocks = 2;  // blocks of eight positions whose scores are computed together

struct PageView {
  const std::int8_t *k, *v;        // [page_tokens / 8][head_stride / 4][8][4] and [page_tokens][head_stride]
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
  for (int line = 0; line < kLanes * head_stride; line += 64) __builtin_prefetch(p + line, 0, 2);
  __builtin_prefetch(scales + i, 0, 2);
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

// What the score bias adds to the scores of a split's positions from number `i` to number `count`.
template <int Heads>
static void bias_scores(const AttentionTask &task, int kv_head, int first_head, int split, int i, int count,
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
      cosine[pairs][h] = terms[p] * start[p] + terms[half + p] * start[half + p];
      sine[pairs][h] = terms[half + p] * start[p] - terms[p] * start[half + p];
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

// Softly caps the scores of a page's positions from `first` to `count`, but for what is masked; `most` keeps the running
// maxima.
template <int Heads>
static void cap_scores(float softcap, int first, int count, float *scores, V8f *most) {
  const float inverse = 1.0f / softcap;
  for (int h = 0; h < Heads; ++h)
    for (int i = first; i < count; i += kLanes) {
      float *at = scores + h * kScoreStride + i;
      const V8f score = load<V8f>(at);
      const V8f capped = where_at_least(score, kMasked / 2, soft_capped(score, softcap, inverse), score);
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

// One row's exponentials, which take the place of the scores, times the scales of the values; and its maxima and sums.
template <int Heads>
RL_INLINE void weigh(const AttentionTask &task, int kv_head, int begin, Span span, const V8f *most, float *scores,
                     float *partial) {
  const int stride = task.kv.head_stride;
  V8f top[Heads], total[Heads];
  for (int h = 0; h < Heads; ++h) top[h] = splat(maximum(most[h])), total[h] = splat(0.0f);
  each_page(task, kv_head, span.from, span.end, [&](const PageView &page, int p, int skip, int count) {
    for (int i = skip & -kLanes; i < count; i += kLanes) {
      const V8f scale = load<V8f>(page.v_scale + i);
      float *at = scores + (p - begin) + i;
      V8f e[Heads];
      for (int h = 0; h < Heads; ++h) e[h] = load<V8f>(at + h * kScoreStride) - top[h];
      exponentials<Heads>(e);
      for (int h = 0; h < Heads; ++h) {
        total[h] += e[h];
        store(at + h * kScoreStride, e[h] * scale);
      }
    }
  });
  for (int h = 0; h < Heads; ++h) {
    float *values = partial + h * (stride + kPartialExtra), *extra = values + stride;
    for (int c = 0; c < stride; c += kLanes) store(values + c, splat(0.0f));
    extra[0] = top[h][0];
    extra[1] = sum(total[h]);
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
  for (int r = 0; r < count; ++r) {
    const AttentionTask &row = rows[r];
    const int end = row.position + 1;
    spans[r] = {row.first > begin ? row.first : begin, end < begin + kSplit ? end : begin + kSplit};
    Queries<Heads> &q = queries[r];
    q.codes = row.q + first_head * stride;
    for (int h = 0; h < Heads; ++h) q.scale[h] = row.sq[first_head + h] * row.scale;
    excess_of(q.codes, stride, stride / kTile, Heads, q.over);
    if (biased)
      bias_scores<Heads>(row, kv_head, first_head, split, (spans[r].from - begin) & -kLanes, spans[r].end - begin,
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
  float *sums[kTileRows * Heads];
  for (int r = 0; r < count; ++r) {
    if (task.softcap != 0.0f) {
      for (int h = 0; h < Heads; ++h) most[r][h] = splat(kMasked);
      each_page(task, kv_head, spans[r].from, spans[r].end, [&](const PageView &, int p, int skip, int end) {
        cap_scores<Heads>(task.softcap, skip & -kLanes, end, scores + r * kRowScores + (p - begin), most[r]);
      });
    }
    weigh<Heads>(task, kv_head, begin, spans[r], most[r], scores + r * kRowScores, partial + r * apart);
    for (int h = 0; h < Heads; ++h) sums[r * Heads + h] = partial + r * apart + h * (stride + kPartialExtra);
  }
  // Page by page, so that the values of a page stay in the first cache while their columns take turns. It is most of the
  // work and reads no memory, so the data of the next split is fetched meanwhile.
  each_page(task, kv_head, first.from, last.end, [&](const PageView &page, int p, int, int) {
    const int due = p + kSplit <= task.position ? tokens : 0;
    const PageView next = page_at(task, kv_head, due == 0 ? p : p + kSplit);
    // What all rows see, and each adds up in the same order: before it comes what its window begins with, after it what
    // later rows do not see.
    const Seen all{seen_of(last, p, tokens).skip, seen_of(first, p, tokens).count};
    const bool shared = count > 1 && all.skip < all.count;
    const auto add_alone = [&](int r, int column, int from, int end) {
      if (from < end)
        add_values<Heads>(page.v + static_cast<std::int64_t>(from) * stride + column, stride, end - from,
                          scores + r * kRowScores + (p - begin) + from, partial + r * apart + column, stride + kPartialExtra);
    };
    for (int column = 0, fetched = 0; column < stride; column += kValues) {
      for (const int until = due * (column + kValues) / stride; fetched + kLanes <= until; fetched += kLanes) {
        fetch_eight(next.k, next.k_scale, stride, fetched);
        fetch_eight(next.v, next.v_scale, stride, fetched);
      }
      for (int r = 0; r < count; ++r) {
        const Seen seen = seen_of(spans[r], p, tokens);
        add_alone(r, column, seen.skip, shared ? all.skip : seen.count);
      }
      if (!shared) continue;
      for (int i = all.skip; i < all.count; i += kWide) {
        alignas(64) float wide[kWide * kValues];
        const int some = all.count - i < kWide ? all.count - i : kWide;
        widen_values(page.v + static_cast<std::int64_t>(i) * stride + column, stride, some, wide);
        add_wide_values(wide, some, scores + (p - begin) + i, count * Heads, sums, column);
      }
      for (int r = 0; r < count; ++r) add_alone(r, column, all.count, seen_of(spans[r], p, tokens).count);
    }
  });
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
    each_eight(task.head_dim, [&](int c, auto n) {
      store_part(y + c, load<V8f>(partial + c) / splat(partial[stride + 1]), n);
    });
}

}  // namespace rl::RL_ISA
