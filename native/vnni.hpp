// What the kernels with vpdpbusd share, whatever the width of a vector: it does in one instruction what takes AVX2 four.
//
// vpdpbusd multiplies unsigned by signed bytes and adds fours of products to 32 bits without saturating. The weights
// are the unsigned side: they are 128 too large, and 128 times the sum of x is subtracted in the end, modulo 2^32 and so
// exactly.
//
// The including file has defined, in this namespace, kBias = 128, kMultiplied (rows of x that are multiplied together)
// and what x86.hpp takes, but for what
// is defined here.
#pragma once

#include "x86_weights.hpp"

namespace rl::RL_ISA {

RL_INLINE Wide::V input_of(const std::int8_t *p) { return Wide::on_each_side(p); }
template <typename W>
RL_INLINE auto four_inputs(const std::int8_t *p) {
  return W::in_every_lane(p);
}
// By hand, because GCC copies every accumulator of a loop before and after the instruction.
template <typename V>
RL_INLINE V accumulate(V acc, V w, V x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "vm"(x));
  return acc;
}
RL_INLINE Wide::V accumulate_unsigned(Wide::V acc, Wide::V x, Wide::V w) { return accumulate(acc, x, w); }

}  // namespace rl::RL_ISA

#include "x86.hpp"

namespace rl::RL_ISA {

// What the bias adds to every sum of each of `vectors` rows of x: kBias times the sum of the row.
static void excess_of(const std::int8_t *x, std::int64_t x_stride, int tiles, int vectors, std::int32_t *over) {
  const __m256i bias = _mm256_set1_epi8(-kBias);  // as an unsigned byte
  for (int v = 0; v < vectors; ++v, x += x_stride) {
    __m256i acc[kStrip];
    for (auto &a : acc) a = _mm256_setzero_si256();
    int t = 0;
    for (; t + 4 <= tiles; t += 4)
      for (int i = 0; i < 4; ++i) acc[i] = _mm256_dpbusd_epi32(acc[i], bias, load_bytes(x + (t + i) * kTile));
    for (; t < tiles; ++t) acc[0] = _mm256_dpbusd_epi32(acc[0], bias, load_bytes(x + t * kTile));
    for (int i = 1; i < 4; ++i) acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    for (int i = 1; i < 4; ++i) acc[i] = _mm256_setzero_si256();
    over[v] = _mm256_cvtsi256_si32(reduce8(acc));
  }
}

// An unpacked tile: eight times four inputs, [8 rows][4 inputs] each, so that a vector is multiplied by four inputs of x
// repeated for every row, and each lane is the sum of one row.
using Unpacked = std::uint8_t;

static void unpack_strip(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                         int tiles, Unpacked *out) {
  each_tile(bits, codes, index, pairs, tiles, [&](int tile, const __m256i (&w)[kStrip]) {
    __m256i two[kStrip], four[kStrip];  // [.. rows of one quad ..] in each lane
    for (int r = 0; r < kStrip; r += 2) {
      two[r] = _mm256_unpacklo_epi32(w[r], w[r + 1]);
      two[r + 1] = _mm256_unpackhi_epi32(w[r], w[r + 1]);
    }
    for (int half = 0; half < kStrip; half += 4)
      for (int i = 0; i < 2; ++i) {
        four[half + 2 * i] = _mm256_unpacklo_epi64(two[half + i], two[half + i + 2]);
        four[half + 2 * i + 1] = _mm256_unpackhi_epi64(two[half + i], two[half + i + 2]);
      }
    __m256i *to = reinterpret_cast<__m256i *>(out + tile * kStrip * kTile);
    for (int q = 0; q < 4; ++q) {
      _mm256_storeu_si256(to + q, _mm256_permute2x128_si256(four[q], four[4 + q], 0x20));
      _mm256_storeu_si256(to + 4 + q, _mm256_permute2x128_si256(four[q], four[4 + q], 0x31));
    }
  });
}

// `Wides` vectors of unpacked strips times `Vectors` rows of x.
template <typename W, int Wides, int Vectors>
RL_INLINE void multiply_strips(const Unpacked *w, const std::int8_t *x, std::int64_t x_stride, int tiles,
                               std::int32_t *sums) {
  const std::int64_t strip_bytes = std::int64_t{tiles} * kTile * kStrip;
  typename W::V acc[Wides][Vectors];
  for (auto &wide : acc)
    for (auto &a : wide) a = W::zero();
  for (const Unpacked *end = w + strip_bytes; w != end; w += kStrip * kQuad, x += kQuad) {
    typename W::V weights[Wides];
    for (int s = 0; s < Wides; ++s) weights[s] = W::load_sides(w + s * W::kSides * strip_bytes, strip_bytes);
    for (int v = 0; v < Vectors; ++v) {
      const auto input = four_inputs<W>(x + v * x_stride);
      for (int s = 0; s < Wides; ++s) acc[s][v] = accumulate(acc[s][v], weights[s], input);
    }
  }
  for (int s = 0; s < Wides; ++s)
    for (int v = 0; v < Vectors; ++v)
      W::store_sides(sums + (s * W::kSides * Vectors + v) * kStrip, Vectors * kStrip, acc[s][v]);
}

// As many strips as `Wides` vectors hold, while there are so many; what is left goes to narrower ones.
template <typename W, int Wides, int Vectors>
RL_INLINE void multiply_rows(const Unpacked *w, int strips, const std::int8_t *x, std::int64_t x_stride, int tiles,
                             std::int32_t *sums) {
  constexpr int kStrips = Wides * W::kSides;
  for (; strips >= kStrips; strips -= kStrips) {
    multiply_strips<W, Wides, Vectors>(w, x, x_stride, tiles, sums);
    w += std::int64_t{kStrips} * tiles * kTile * kStrip;
    sums += kStrips * Vectors * kStrip;
  }
  if constexpr (Wides > 1)
    multiply_rows<W, 1, Vectors>(w, strips, x, x_stride, tiles, sums);
  else if constexpr (W::kSides > 1)
    multiply_rows<Ymm, 1, Vectors>(w, strips, x, x_stride, tiles, sums);
}

// Unpacked strips times 1 to kMultiplied rows of x: sums[strip][vectors][8], biased.
template <int Vectors = 1>
static void multiply(const Unpacked *w, int strips, int vectors, const std::int8_t *x, std::int64_t x_stride, int tiles,
                     std::int32_t *sums) {
  if (vectors == Vectors)
    multiply_rows<Wide, 2, Vectors>(w, strips, x, x_stride, tiles, sums);
  else if constexpr (Vectors < kMultiplied)
    multiply<Vectors + 1>(w, strips, vectors, x, x_stride, tiles, sums);
}

}  // namespace rl::RL_ISA
