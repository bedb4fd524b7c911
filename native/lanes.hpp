// Eight fp32 lanes and what is made of them: the only float arithmetic of the core.
//
// GCC vector types compile to AVX2, to NEON or to pairs of SSE registers with the same IEEE operations in the same
// order: no fused multiply-add, no reciprocal estimates, reductions in one fixed order. Included by each kernel's
// source file, inside its own namespace, so that no inline function is shared between instruction sets.
#pragma once

#include <cstdint>
#include <cstring>

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
RL_INLINE V8f to_float(V8i v) { return __builtin_convertvector(v, V8f); }
RL_INLINE V8f absolute(V8f v) { return as_float(as_bits(v) & splat(0x7fffffff)); }
RL_INLINE V8f larger(V8f a, V8f b) { return a > b ? a : b; }

RL_INLINE float sum(V8f v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }
RL_INLINE float maximum(V8f v) {
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

// Nearest integer, half to even, for |x| < 2^22: adding 1.5 * 2^23 leaves the integer in the low mantissa bits.
RL_INLINE V8i nearest(V8f x) { return as_bits(x + splat(12582912.0f)) - splat(0x4B400000); }

// exp(x), relative error below 2e-7; 0 below -87 and its value at 88 above that. x = n ln 2 + r, |r| <= ln 2 / 2,
// ln 2 in two parts so that r is exact; exp(r) by a polynomial of degree 7 (the minimax one of the Cephes library).
RL_INLINE V8f exponential(V8f x) {
  const V8f low = splat(-87.0f), high = splat(88.0f);
  const V8f clamped = x > low ? (x < high ? x : high) : low;
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
  const V8f result = p * as_float(power);
  return x < low ? splat(0.0f) : result;
}
RL_INLINE float exponential(float x) { return exponential(splat(x))[0]; }

}  // namespace rl::RL_ISA
