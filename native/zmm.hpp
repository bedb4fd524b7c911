// Vectors of 512 bits, as x86.hpp takes them.
#pragma once

#include "ymm.hpp"

namespace rl::RL_ISA {

// Of two sides (ymm.hpp).
struct Zmm {
  using V = __m512i;
  static constexpr int kSides = 2;

  RL_INLINE V zero() { return _mm512_setzero_si512(); }
  RL_INLINE V load(const void *p) { return _mm512_loadu_si512(p); }
  RL_INLINE void store(std::int32_t *to, V v) { _mm512_storeu_si512(to, v); }
  RL_INLINE V joined(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }
  RL_INLINE V load_sides(const void *p, std::int64_t apart) {
    return joined(load_bytes(p), load_bytes(static_cast<const char *>(p) + apart));
  }
  RL_INLINE void store_sides(std::int32_t *to, std::int64_t apart, V v) {
    Ymm::store(to, _mm512_castsi512_si256(v));
    Ymm::store(to + apart, _mm512_extracti64x4_epi64(v, 1));
  }
  RL_INLINE V pair_sums(V a, V b) { return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)); }
  RL_INLINE __m256i eight_sums(const V *acc) {
    const V two = pair_sums(acc[0], acc[1]), other = pair_sums(acc[2], acc[3]);
    const V all = _mm512_add_epi32(_mm512_unpacklo_epi64(two, other), _mm512_unpackhi_epi64(two, other));
    const __m256i low = _mm512_castsi512_si256(all), high = _mm512_extracti64x4_epi64(all, 1);
    const __m128i first = _mm_add_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    const __m128i second = _mm_add_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
    return _mm256_set_m128i(_mm_unpackhi_epi32(first, second), _mm_unpacklo_epi32(first, second));
  }
  RL_INLINE V on_each_side(const void *p) { return _mm512_broadcast_i64x4(load_bytes(p)); }
  RL_INLINE V in_every_lane(const std::int8_t *p) { return _mm512_set1_epi32(rl::RL_ISA::load<std::int32_t>(p)); }
  RL_INLINE V biased(V w) { return kBias == 0 ? w : _mm512_xor_si512(w, _mm512_set1_epi8(-128)); }
  RL_INLINE V both_planes(V high, V low) { return _mm512_add_epi32(_mm512_slli_epi32(high, 7), low); }

  // Numbers of bits by which the words of each side are shifted.
  RL_INLINE V shifts(int first, int second) {
    return joined(_mm256_set1_epi16(static_cast<short>(first)), _mm256_set1_epi16(static_cast<short>(second)));
  }

  // The weights of rows R and R + 1 of a tile, biased.
  template <int Bits, int R>
  RL_INLINE V weights(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs) {
    static_assert(R % 2 == 0);
    if constexpr (Bits == 8) {
      return biased(load(codes + R * kTile));
    } else {
      V code;
      if constexpr (Bits == 4) {
        code = _mm512_srlv_epi16(on_each_side(codes + R / 2 * kTile), shifts(0, 4));
        code = _mm512_and_si512(code, _mm512_set1_epi8(15));
      } else {
        constexpr int kShift = R % 4 * 2;
        code = _mm512_srlv_epi16(on_each_side(codes + R / 4 * kTile), shifts(kShift, kShift + 2));
        code = _mm512_and_si512(code, _mm512_set1_epi8(3));
        if constexpr (Bits == 3) {
          V bit = on_each_side(codes + 2 * kTile);
          bit = R == 0 ? _mm512_sllv_epi16(bit, shifts(2, 1)) : _mm512_srlv_epi16(bit, shifts(R - 2, R - 1));
          code = _mm512_or_si512(code, _mm512_and_si512(bit, _mm512_set1_epi8(4)));
        }
      }
      const V tables = joined(load_bytes(pairs + std::size_t{index[R]} * 32), load_bytes(pairs + std::size_t{index[R + 1]} * 32));
      return _mm512_shuffle_epi8(tables, code);
    }
  }
};

}  // namespace rl::RL_ISA
