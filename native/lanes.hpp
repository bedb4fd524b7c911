// Eight fp32 lanes and what is made of them: the only float arithmetic of the core.
//
// GCC vector types compile to AVX2, to NEON or to pairs of SSE registers with the same IEEE operations in the same
// order: no fused multiply-add, no reciprocal estimates, reductions in one fixed order. What GCC would take apart lane
// by lane (comparisons of vectors wider than a register, changes of width) is spelled out; its results are exact.
// Included by each kernel's source file, inside its own namespace, so that no inline function is shared between
// instruction sets.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#ifndef RL_ISA
#error "define RL_ISA (the kernel's namespace) before including this file"
#endif
#define RL_INLINE static inline __attribute__((always_inline))

namespace rl::RL_ISA {

typedef float V8f __attribute__((vector_size(32)));
typedef std::int32_t V8i __attribute__((vector_size(32)));
typedef double V8d __attribute__((vector_size(64)));
typedef std::int8_t V8b __attribute__((vector_size(8)));

constexpr int kLanes = 8;

RL_INLINE V8f splat(float x) { return V8f{x, x, x, x, x, x, x, x}; }
RL_INLINE V8i splat(std::int32_t x) { return V8i{x, x, x, x, x, x, x, x}; }

template <typename V, typename T>
RL_INLINE V load(const T *p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename V, typename T>
RL_INLINE void store(T *p, V v) {
  std::memcpy(p, &v, sizeof v);
}
// The first n lanes; the others are 0.
RL_INLINE V8f load_part(const float *p, int n) {
  if (n >= kLanes) return load<V8f>(p);
  V8f v = splat(0.0f);
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
RL_INLINE void store_part(float *p, V8f v, int n) {
  if (n >= kLanes) {
    store(p, v);
    return;
  }
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

RL_INLINE V8f as_float(V8i v) { return (V8f)v; }
RL_INLINE V8i as_bits(V8f v) { return (V8i)v; }
RL_INLINE V8f absolute(V8f v) { return as_float(as_bits(v) & splat(0x7fffffff)); }

// a > b ? a : b and a < b ? a : b, lane by lane (b where either is no number), and int32 as fp32.
#if defined(__AVX2__)
RL_INLINE V8f larger(V8f a, V8f b) { return a > b ? a : b; }
RL_INLINE V8f smaller(V8f a, V8f b) { return a < b ? a : b; }
RL_INLINE V8f to_float(V8i v) { return __builtin_convertvector(v, V8f); }
#else
typedef float V4f __attribute__((vector_size(16)));
typedef std::int32_t V4i __attribute__((vector_size(16)));
template <typename V4>
struct Halves {
  V4 low, high;
};
template <typename V4, typename V8>
RL_INLINE Halves<V4> halves(V8 v) {
  Halves<V4> h;
  std::memcpy(&h, &v, sizeof v);
  return h;
}
RL_INLINE V8f larger(V8f a, V8f b) {
  const auto x = halves<V4f>(a), y = halves<V4f>(b);
  const Halves<V4f> most = {x.low > y.low ? x.low : y.low, x.high > y.high ? x.high : y.high};
  return load<V8f>(&most);
}
RL_INLINE V8f smaller(V8f a, V8f b) {
  const auto x = halves<V4f>(a), y = halves<V4f>(b);
  const Halves<V4f> least = {x.low < y.low ? x.low : y.low, x.high < y.high ? x.high : y.high};
  return load<V8f>(&least);
}
RL_INLINE V8f to_float(V8i v) {
  const auto x = halves<V4i>(v);
  const Halves<V4f> floats = {__builtin_convertvector(x.low, V4f), __builtin_convertvector(x.high, V4f)};
  return load<V8f>(&floats);
}
#endif

// Eight int8 as int32, and eight int32 as int8, saturated.
#if defined(__AVX2__)
RL_INLINE V8i widen(const std::int8_t *p) {
  return (V8i)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)));
}
RL_INLINE void narrow(std::int8_t *p, V8i v) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i *>(p), _mm_packs_epi16(words, words));
}
#elif defined(__ARM_NEON)
RL_INLINE V8i widen(const std::int8_t *p) {
  const int16x8_t words = vmovl_s8(vld1_s8(p));
  const int32x4_t parts[] = {vmovl_s16(vget_low_s16(words)), vmovl_s16(vget_high_s16(words))};
  return load<V8i>(parts);
}
RL_INLINE void narrow(std::int8_t *p, V8i v) {
  const auto x = halves<int32x4_t>(v);
  vst1_s8(p, vqmovn_s16(vcombine_s16(vqmovn_s32(x.low), vqmovn_s32(x.high))));
}
#else
RL_INLINE V8i widen(const std::int8_t *p) { return __builtin_convertvector(load<V8b>(p), V8i); }
RL_INLINE void narrow(std::int8_t *p, V8i v) {
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<std::int8_t>(v[i] > 127 ? 127 : v[i] < -128 ? -128 : v[i]);
}
#endif

RL_INLINE float sum(V8f v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }
RL_INLINE float maximum(V8f v) {
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

// Nearest integer, half to even, for |x| < 2^22: adding 1.5 * 2^23 leaves the integer in the low mantissa bits.
RL_INLINE V8i nearest(V8f x) { return as_bits(x + splat(12582912.0f)) - splat(0x4B400000); }

// exp(x) with a relative error below 2e-7 for -87 <= x <= 88, its value at the nearer border beyond. x = n ln 2 + r,
// |r| <= ln 2 / 2, ln 2 in two parts so that r is exact; exp(r) by a polynomial of degree 7 (the minimax one of the
// Cephes library).
RL_INLINE V8f exponential(V8f x) {
  const V8f clamped = larger(smaller(x, splat(88.0f)), splat(-87.0f));
  const V8f shifted = clamped * splat(1.44269504f) + splat(12582912.0f);
  const V8f n = shifted - splat(12582912.0f);
  const V8f r = (clamped - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
  V8f p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = (p * (r * r) + r) + splat(1.0f);
  const V8i power = (as_bits(shifted) - splat(0x4B400000) + splat(127)) << 23;
  return p * as_float(power);
}
RL_INLINE float exponential(float x) { return exponential(splat(x))[0]; }

}  // namespace rl::RL_ISA
