// x86-64 with AVX-512 VNNI on 256-bit vectors: thirty-two registers, and vpdpbusd, which does in one instruction what
// takes AVX2 four.
//
// vpdpbusd multiplies unsigned by signed bytes and adds fours of products to 32 bits without saturating. The weights
// are the unsigned side: they are 128 too large, and 128 times the sum of x is subtracted in the end, modulo 2^32 and so
// exactly.
#define RL_ISA vnni
#include <immintrin.h>

#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::vnni {

constexpr int kBias = 128, kSums = 24, kTogether = 4, kStreamed = 12;

using Input = __m256i;
RL_INLINE Input input_of(const std::int8_t *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
RL_INLINE Input four_inputs(const std::int8_t *p) { return _mm256_set1_epi32(load<std::int32_t>(p)); }
// By hand, because GCC copies every accumulator of a loop before and after the instruction.
RL_INLINE __m256i accumulate(__m256i acc, __m256i w, Input x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "vm"(x));
  return acc;
}
RL_INLINE __m256i excess(__m256i acc, Input x) { return _mm256_dpbusd_epi32(acc, _mm256_set1_epi8(-kBias), x); }

constexpr int kValueQueries = 4;
RL_INLINE __m256i accumulate_unsigned(__m256i acc, __m256i x, __m256i w) { return accumulate(acc, x, w); }

}  // namespace rl::vnni

#include "x86.hpp"

namespace rl::vnni {

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

constexpr int kMultiplied = 8;

// `Strips` unpacked strips times `Vectors` rows of x.
template <int Strips, int Vectors>
RL_INLINE void multiply_strips(const Unpacked *w, const std::int8_t *x, std::int64_t x_stride, int tiles,
                               std::int32_t *sums) {
  const std::int64_t strip_bytes = std::int64_t{tiles} * kTile * kStrip;
  __m256i acc[Strips][Vectors];
  for (auto &strip : acc)
    for (auto &a : strip) a = _mm256_setzero_si256();
  for (const Unpacked *end = w + strip_bytes; w != end; w += kStrip * 4, x += 4) {
    __m256i weights[Strips];
    for (int s = 0; s < Strips; ++s) weights[s] = load_bytes(w + s * strip_bytes);
    for (int v = 0; v < Vectors; ++v) {
      const __m256i input = four_inputs(x + v * x_stride);
      for (int s = 0; s < Strips; ++s) acc[s][v] = accumulate(acc[s][v], weights[s], input);
    }
  }
  for (int s = 0; s < Strips; ++s)
    for (int v = 0; v < Vectors; ++v)
      _mm256_storeu_si256(reinterpret_cast<__m256i *>(sums + (s * Vectors + v) * kStrip), acc[s][v]);
}

template <int Vectors>
static void multiply_rows(const Unpacked *w, int strips, const std::int8_t *x, std::int64_t x_stride, int tiles,
                          std::int32_t *sums) {
  for (; strips >= 2; strips -= 2) {
    multiply_strips<2, Vectors>(w, x, x_stride, tiles, sums);
    w += std::int64_t{2} * tiles * kTile * kStrip;
    sums += 2 * Vectors * kStrip;
  }
  if (strips == 1) multiply_strips<1, Vectors>(w, x, x_stride, tiles, sums);
}

// Unpacked strips times 1 to kMultiplied rows of x: sums[strip][vectors][8], biased.
static void multiply(const Unpacked *w, int strips, int vectors, const std::int8_t *x, std::int64_t x_stride, int tiles,
                     std::int32_t *sums) {
  switch (vectors) {
    case 1: multiply_rows<1>(w, strips, x, x_stride, tiles, sums); break;
    case 2: multiply_rows<2>(w, strips, x, x_stride, tiles, sums); break;
    case 3: multiply_rows<3>(w, strips, x, x_stride, tiles, sums); break;
    case 4: multiply_rows<4>(w, strips, x, x_stride, tiles, sums); break;
    case 5: multiply_rows<5>(w, strips, x, x_stride, tiles, sums); break;
    case 6: multiply_rows<6>(w, strips, x, x_stride, tiles, sums); break;
    case 7: multiply_rows<7>(w, strips, x, x_stride, tiles, sums); break;
    default: multiply_rows<8>(w, strips, x, x_stride, tiles, sums); break;
  }
}

}  // namespace rl::vnni

#include "table_of_kernels.hpp"

namespace rl {
extern const Kernels vnni_kernels;
const Kernels vnni_kernels = vnni::table_of(RL_KERNEL_VNNI);
}  // namespace rl
