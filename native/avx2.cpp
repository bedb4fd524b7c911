// x86-64 with AVX2: products by maddubs while codes stream in, by madd from unpacked words.
//
// maddubs multiplies unsigned by signed bytes and saturates at 16 bits, so it multiplies |x| by w with the sign of x: at most
// 2 * 128 * 127 = 32512, below the limit, and the sums are exact.
#define RL_ISA avx2
#include <immintrin.h>

#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::avx2 {

constexpr int kBias = 0, kSums = 8, kTogether = 2, kStreamed = 2, kValueQueries = 2;
RL_INLINE void excess_of(const std::int8_t *, std::int64_t, int, int, std::int32_t *) {}  // there is none

}  // namespace rl::avx2

#include "ymm.hpp"

namespace rl::avx2 {

using Wide = Ymm;

struct Input {
  __m256i x, magnitude;
};
RL_INLINE Input input_of(const std::int8_t *p) {
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  return Input{x, _mm256_abs_epi8(x)};
}
template <typename>
RL_INLINE Input four_inputs(const std::int8_t *p) {
  const __m256i x = _mm256_set1_epi32(load<std::int32_t>(p));
  return Input{x, _mm256_abs_epi8(x)};
}
RL_INLINE __m256i accumulate(__m256i acc, __m256i w, const Input &input) {
  const __m256i pairs = _mm256_maddubs_epi16(input.magnitude, _mm256_sign_epi8(w, input.x));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
RL_INLINE __m256i accumulate_unsigned(__m256i acc, __m256i x, __m256i w) {
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
}

}  // namespace rl::avx2

#include "x86.hpp"

namespace rl::avx2 {

// Sixteen bits a weight: madd on words needs no sign trick, so a many-row linear does two multiplications where bytes
// take three instructions on the same ports.
using Unpacked = std::int16_t;

// A strip as words [8][tiles * 32].
static void unpack_strip(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                         int tiles, Unpacked *out) {
  const std::int64_t cols = std::int64_t{tiles} * kTile;
  each_tile(bits, codes, index, pairs, tiles, [&](int tile, const __m256i (&w)[kStrip]) {
    for (int row = 0; row < kStrip; ++row) {
      __m256i *to = reinterpret_cast<__m256i *>(out + row * cols + tile * kTile);
      _mm256_storeu_si256(to, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(w[row])));
      _mm256_storeu_si256(to + 1, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(w[row], 1)));
    }
  });
}

RL_INLINE __m256i load_words(const std::int8_t *p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}

RL_INLINE void multiply1(const Unpacked *w, const std::int8_t *x, int tiles, std::int32_t *sums) {
  const std::int64_t cols = std::int64_t{tiles} * kTile;
  __m256i acc[kStrip];
  for (auto &a : acc) a = _mm256_setzero_si256();
  for (std::int64_t k = 0; k < cols; k += 16) {
    const __m256i input = load_words(x + k);
    for (int r = 0; r < kStrip; ++r)
      acc[r] = _mm256_add_epi32(acc[r], _mm256_madd_epi16(input, load_bytes(w + r * cols + k)));
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(sums), reduce8(acc));
}

constexpr int kMultiplied = 4;

// All eight rows of a strip times four of x: 4 rows x 2 at a time keep eight sums in registers.
RL_INLINE void multiply4(const Unpacked *w, const std::int8_t *x, std::int64_t x_stride, int tiles,
                         std::int32_t *sums) {
  const std::int64_t cols = std::int64_t{tiles} * kTile;
  for (int v = 0; v < 4; v += 2) {
    const std::int8_t *first = x + v * x_stride, *second = first + x_stride;
    for (int row = 0; row < kStrip; row += 4) {
      const Unpacked *rows = w + row * cols;
      __m256i acc[kStrip];  // [2 rows of x][4 rows of w]
      for (auto &a : acc) a = _mm256_setzero_si256();
      for (std::int64_t k = 0; k < cols; k += 16) {
        const __m256i a = load_words(first + k), b = load_words(second + k);
        for (int r = 0; r < 4; ++r) {
          const __m256i weights = load_bytes(rows + r * cols + k);
          acc[r] = _mm256_add_epi32(acc[r], _mm256_madd_epi16(a, weights));
          acc[4 + r] = _mm256_add_epi32(acc[4 + r], _mm256_madd_epi16(b, weights));
        }
      }
      const __m256i found = reduce8(acc);
      store_half(sums + v * kStrip + row, _mm256_castsi256_si128(found));
      store_half(sums + (v + 1) * kStrip + row, _mm256_extracti128_si256(found, 1));
    }
  }
}

// Unpacked strips times 1 to kMultiplied rows of x: sums[strip][vectors][8].
static void multiply(const Unpacked *w, int strips, int vectors, const std::int8_t *x, std::int64_t x_stride, int tiles,
                     std::int32_t *sums) {
  for (; strips > 0; --strips, w += std::int64_t{tiles} * kTile * kStrip, sums += vectors * kStrip) {
    if (vectors == kMultiplied)
      multiply4(w, x, x_stride, tiles, sums);
    else
      for (int v = 0; v < vectors; ++v) multiply1(w, x + v * x_stride, tiles, sums + v * kStrip);
  }
}

}  // namespace rl::avx2

#include "table_of_kernels.hpp"

namespace rl {
extern const Kernels avx2_kernels;
const Kernels avx2_kernels = avx2::table_of(RL_KERNEL_AVX2);
}  // namespace rl
