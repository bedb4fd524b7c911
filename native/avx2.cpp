// x86-64 with AVX2: tables by byte shuffle, products by maddubs.
//
// maddubs multiplies unsigned by signed bytes and saturates at 16 bits, so |x| meets w with the sign of x: at most
// 2 * 128 * 127 = 32512, below the limit, and the sums are exact.
#define RL_ISA avx2
#include <immintrin.h>

#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::avx2 {

RL_INLINE __m256i load_bytes(const void *p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }

// All 256 pairs of tables, so that one index byte names one 32-byte load: the table of the first group in the lower
// lane, of the second group in the upper one.
static const std::int8_t *prepare_tables(const rl_band &band, Scratch &scratch) {
  if (band.bits == 8 || scratch.pairs_of == band.tables) return scratch.pairs;
  for (int second = 0; second < 16; ++second) {
    const __m128i upper = _mm_loadu_si128(reinterpret_cast<const __m128i *>(band.tables + second * 16));
    for (int first = 0; first < 16; ++first) {
      const __m128i lower = _mm_loadu_si128(reinterpret_cast<const __m128i *>(band.tables + first * 16));
      _mm256_store_si256(reinterpret_cast<__m256i *>(scratch.pairs + (second * 16 + first) * 32),
                         _mm256_set_m128i(upper, lower));
    }
  }
  scratch.pairs_of = band.tables;
  return scratch.pairs;
}

// acc + the products of 32 weights and inputs, summed by fours.
RL_INLINE __m256i accumulate(__m256i acc, __m256i w, __m256i x, __m256i x_abs) {
  const __m256i pairs = _mm256_maddubs_epi16(x_abs, _mm256_sign_epi8(w, x));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

RL_INLINE __m256i reduce8(const __m256i (&a)[kStrip]) {
  const __m256i s0 = _mm256_hadd_epi32(a[0], a[1]), s1 = _mm256_hadd_epi32(a[2], a[3]);
  const __m256i s2 = _mm256_hadd_epi32(a[4], a[5]), s3 = _mm256_hadd_epi32(a[6], a[7]);
  const __m256i t0 = _mm256_hadd_epi32(s0, s1), t1 = _mm256_hadd_epi32(s2, s3);
  return _mm256_add_epi32(_mm256_permute2x128_si256(t0, t1, 0x20), _mm256_permute2x128_si256(t0, t1, 0x31));
}

// The weights of row R of a tile whose code bytes stand in c (R / rows per byte already chosen).
template <int Bits, int R>
RL_INLINE __m256i weights_of(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs) {
  if constexpr (Bits == 8) {
    return load_bytes(codes + R * kTile);
  } else {
    __m256i code;
    if constexpr (Bits == 4) {
      const __m256i both = load_bytes(codes + R / 2 * kTile);
      code = _mm256_and_si256(R % 2 == 0 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
    } else {
      const __m256i four = load_bytes(codes + R / 4 * kTile);
      code = _mm256_and_si256(_mm256_srli_epi16(four, R % 4 * 2), _mm256_set1_epi8(3));
      if constexpr (Bits == 3) {
        const __m256i eight = load_bytes(codes + 2 * kTile);
        const __m256i bit = R < 2 ? _mm256_slli_epi16(eight, 2 - R) : _mm256_srli_epi16(eight, R - 2);
        code = _mm256_or_si256(code, _mm256_and_si256(bit, _mm256_set1_epi8(4)));
      }
    }
    return _mm256_shuffle_epi8(load_bytes(pairs + index[R] * 32), code);
  }
}

// Bytes of codes fetched ahead of their use. Only below 8 bits: those streams are too slow for the hardware to notice
// in time, while at 8 bits it does better alone.
constexpr int kAhead = 2048;

template <int Bits>
RL_INLINE void strip_dot_bits(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                              const std::int8_t *x, int tiles, std::int32_t *sums) {
  __m256i acc[kStrip];
  for (auto &a : acc) a = _mm256_setzero_si256();
  for (int t = 0; t < tiles; ++t) {
    const __m256i xv = load_bytes(x + t * kTile), xa = _mm256_abs_epi8(xv);
    for (int line = 0; Bits < 8 && line < tile_bytes(Bits); line += 64)
      _mm_prefetch(reinterpret_cast<const char *>(codes) + kAhead + line, _MM_HINT_T0);
    acc[0] = accumulate(acc[0], weights_of<Bits, 0>(codes, index, pairs), xv, xa);
    acc[1] = accumulate(acc[1], weights_of<Bits, 1>(codes, index, pairs), xv, xa);
    acc[2] = accumulate(acc[2], weights_of<Bits, 2>(codes, index, pairs), xv, xa);
    acc[3] = accumulate(acc[3], weights_of<Bits, 3>(codes, index, pairs), xv, xa);
    acc[4] = accumulate(acc[4], weights_of<Bits, 4>(codes, index, pairs), xv, xa);
    acc[5] = accumulate(acc[5], weights_of<Bits, 5>(codes, index, pairs), xv, xa);
    acc[6] = accumulate(acc[6], weights_of<Bits, 6>(codes, index, pairs), xv, xa);
    acc[7] = accumulate(acc[7], weights_of<Bits, 7>(codes, index, pairs), xv, xa);
    codes += tile_bytes(Bits);
    if (Bits < 8) index += kStrip;
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(sums), reduce8(acc));
}

static void strip_dot(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                      const std::int8_t *x, int tiles, std::int32_t *sums) {
  switch (bits) {
    case 2: strip_dot_bits<2>(codes, index, pairs, x, tiles, sums); break;
    case 3: strip_dot_bits<3>(codes, index, pairs, x, tiles, sums); break;
    case 4: strip_dot_bits<4>(codes, index, pairs, x, tiles, sums); break;
    default: strip_dot_bits<8>(codes, index, pairs, x, tiles, sums); break;
  }
}

// Four rows of a strip times two of x: as many sums as registers can hold.
template <int Bits, int First>
RL_INLINE void half_strip_dot2(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                               const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  __m256i acc[kStrip];  // [2 rows of x][4 rows of w]
  for (auto &a : acc) a = _mm256_setzero_si256();
  for (int t = 0; t < tiles; ++t, x += kTile) {
    const __m256i a = load_bytes(x), b = load_bytes(x + x_stride);
    const __m256i a_abs = _mm256_abs_epi8(a), b_abs = _mm256_abs_epi8(b);
    for (int line = 0; First == 0 && Bits < 8 && line < tile_bytes(Bits); line += 64)
      _mm_prefetch(reinterpret_cast<const char *>(codes) + kAhead + line, _MM_HINT_T0);
    const auto add = [&](int row, __m256i w) {
      acc[row] = accumulate(acc[row], w, a, a_abs);
      acc[4 + row] = accumulate(acc[4 + row], w, b, b_abs);
    };
    add(0, weights_of<Bits, First>(codes, index, pairs));
    add(1, weights_of<Bits, First + 1>(codes, index, pairs));
    add(2, weights_of<Bits, First + 2>(codes, index, pairs));
    add(3, weights_of<Bits, First + 3>(codes, index, pairs));
    codes += tile_bytes(Bits);
    if (Bits < 8) index += kStrip;
  }
  const __m256i found = reduce8(acc);
  _mm_storeu_si128(reinterpret_cast<__m128i *>(sums + First), _mm256_castsi256_si128(found));
  _mm_storeu_si128(reinterpret_cast<__m128i *>(sums + kStrip + First), _mm256_extracti128_si256(found, 1));
}

template <int Bits>
RL_INLINE void strip_dot2_bits(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                               const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  half_strip_dot2<Bits, 0>(codes, index, pairs, x, x_stride, tiles, sums);
  half_strip_dot2<Bits, 4>(codes, index, pairs, x, x_stride, tiles, sums);
}

static void strip_dot2(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                       const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  switch (bits) {
    case 2: strip_dot2_bits<2>(codes, index, pairs, x, x_stride, tiles, sums); break;
    case 3: strip_dot2_bits<3>(codes, index, pairs, x, x_stride, tiles, sums); break;
    case 4: strip_dot2_bits<4>(codes, index, pairs, x, x_stride, tiles, sums); break;
    default: strip_dot2_bits<8>(codes, index, pairs, x, x_stride, tiles, sums); break;
  }
}

// Sixteen bits a weight: madd on words needs no sign trick, so a many-row linear does two multiplications where bytes
// take three instructions on the same ports.
using Unpacked = std::int16_t;

// Bytes of codes fetched ahead while a block is unpacked: they arrive while it is multiplied.
constexpr int kBlockAhead = 8192;

template <int Bits>
RL_INLINE void unpack_strip_bits(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                                 int tiles, Unpacked *out) {
  const std::int64_t cols = static_cast<std::int64_t>(tiles) * kTile;
  for (int t = 0; t < tiles; ++t, out += kTile) {
    for (int line = 0; line < tile_bytes(Bits); line += 64)
      _mm_prefetch(reinterpret_cast<const char *>(codes) + kBlockAhead + line, _MM_HINT_T1);
    const auto put = [&](int row, __m256i w) {
      __m256i *to = reinterpret_cast<__m256i *>(out + row * cols);
      _mm256_storeu_si256(to, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(w)));
      _mm256_storeu_si256(to + 1, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(w, 1)));
    };
    put(0, weights_of<Bits, 0>(codes, index, pairs));
    put(1, weights_of<Bits, 1>(codes, index, pairs));
    put(2, weights_of<Bits, 2>(codes, index, pairs));
    put(3, weights_of<Bits, 3>(codes, index, pairs));
    put(4, weights_of<Bits, 4>(codes, index, pairs));
    put(5, weights_of<Bits, 5>(codes, index, pairs));
    put(6, weights_of<Bits, 6>(codes, index, pairs));
    put(7, weights_of<Bits, 7>(codes, index, pairs));
    codes += tile_bytes(Bits);
    if (Bits < 8) index += kStrip;
  }
}

static void unpack_strip(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                         int tiles, Unpacked *out) {
  switch (bits) {
    case 2: unpack_strip_bits<2>(codes, index, pairs, tiles, out); break;
    case 3: unpack_strip_bits<3>(codes, index, pairs, tiles, out); break;
    case 4: unpack_strip_bits<4>(codes, index, pairs, tiles, out); break;
    default: unpack_strip_bits<8>(codes, index, pairs, tiles, out); break;
  }
}

static void dot8(const std::int8_t *w, std::int64_t w_stride, const std::int8_t *x, int tiles, std::int32_t *sums) {
  __m256i acc[kStrip];
  for (auto &a : acc) a = _mm256_setzero_si256();
  for (int t = 0; t < tiles; ++t, w += kTile) {
    const __m256i xv = load_bytes(x + t * kTile), xa = _mm256_abs_epi8(xv);
    for (int r = 0; r < kStrip; ++r) acc[r] = accumulate(acc[r], load_bytes(w + r * w_stride), xv, xa);
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(sums), reduce8(acc));
}

RL_INLINE __m256i load_words(const std::int8_t *p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}

static void multiply1(const Unpacked *w, const std::int8_t *x, int tiles, std::int32_t *sums) {
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

// All eight rows of a strip times four of x: 4 rows x 2 at a time keep eight sums in registers.
static void multiply4(const Unpacked *w, const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
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
      _mm_storeu_si128(reinterpret_cast<__m128i *>(sums + v * kStrip + row), _mm256_castsi256_si128(found));
      _mm_storeu_si128(reinterpret_cast<__m128i *>(sums + (v + 1) * kStrip + row), _mm256_extracti128_si256(found, 1));
    }
  }
}

}  // namespace rl::avx2

#include "table_of_kernels.hpp"

namespace rl {
extern const Kernels avx2_kernels;
const Kernels avx2_kernels = avx2::table_of(RL_KERNEL_AVX2);
}  // namespace rl
