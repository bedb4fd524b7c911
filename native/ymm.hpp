// Vectors of 256 bits, as x86.hpp takes them.
#pragma once

#include "x86_weights.hpp"

namespace rl::RL_ISA {

// 32 bytes are one row of a tile, one block of keys, or one quad of an unpacked strip; that is one side of a vector.
struct Ymm {
  using V = __m256i;
  static constexpr int kSides = 1;

  RL_INLINE V zero() { return _mm256_setzero_si256(); }
  RL_INLINE V load(const void *p) { return load_bytes(p); }
  RL_INLINE void store(std::int32_t *to, V v) { _mm256_storeu_si256(reinterpret_cast<V *>(to), v); }
  // The sides of a vector, so many bytes (or numbers) from each other.
  RL_INLINE V load_sides(const void *p, std::int64_t) { return load_bytes(p); }
  RL_INLINE void store_sides(std::int32_t *to, std::int64_t, V v) { store(to, v); }
  // Of accumulators with eight sides, what the lanes of each of these add up to.
  RL_INLINE __m256i eight_sums(const V *acc) { return reduce8(acc); }
  // One side's bytes on each of them, and four bytes in every lane.
  RL_INLINE V on_each_side(const void *p) { return load_bytes(p); }
  RL_INLINE V in_every_lane(const std::int8_t *p) { return _mm256_set1_epi32(rl::RL_ISA::load<std::int32_t>(p)); }
  RL_INLINE V biased(V w) { return rl::RL_ISA::biased(w); }
  RL_INLINE V both_planes(V high, V low) { return _mm256_add_epi32(_mm256_slli_epi32(high, 7), low); }

  // The weights of row R of a tile, biased.
  template <int Bits, int R>
  RL_INLINE V weights(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs) {
    return weights_of<Bits, R>(codes, index, pairs);
  }
};

}  // namespace rl::RL_ISA
