// Eight fp32 lanes and what is made of them: the only float arithmetic of the core.
//
// GCC vector types compile to AVX2, to NEON or to SSE with the same IEEE operations in the same order: no fused
// multiply-add, no reciprocal estimates, reductions in one fixed order. What GCC would take apart lane by lane (changes
// of width, comparisons) is spelled out; its results are exact.
// Included by each kernel's source file, inside its own namespace, so that no inline function is shared between
// instruction sets.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

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

constexpr int kLanes = 8;

// Eight lanes are one register of AVX2, and elsewhere two of four. Both have the same operators, lane by lane.
#if defined(__AVX2__)
typedef float V8f __attribute__((vector_size(32)));
typedef std::int32_t V8i __attribute__((vector_size(32)));
typedef double V8d __attribute__((vector_size(64)));

RL_INLINE V8f splat(float x) { return V8f{x, x, x, x, x, x, x, x}; }
RL_INLINE V8i splat(std::int32_t x) { return V8i{x, x, x, x, x, x, x, x}; }

RL_INLINE V8f as_float(V8i v) { return (V8f)v; }
RL_INLINE V8i as_bits(V8f v) { return (V8i)v; }
RL_INLINE V8f absolute(V8f v) { return as_float(as_bits(v) & splat(0x7fffffff)); }

// a + b and a - b modulo 2^32.
typedef std::uint32_t V8u __attribute__((vector_size(32)));
RL_INLINE V8i plus(V8i a, V8i b) { return (V8i)((V8u)a + (V8u)b); }
RL_INLINE V8i difference(V8i a, V8i b) { return (V8i)((V8u)a - (V8u)b); }
#else
typedef float V4f __attribute__((vector_size(16)));
typedef std::int32_t V4i __attribute__((vector_size(16)));

// GCC keeps a vector wider than a register in memory: two that fit stay where they are.
template <typename V4>
struct Pair {
  V4 low, high;
  __attribute__((always_inline)) auto operator[](int i) const { return i < 4 ? low[i] : high[i - 4]; }
};
using V8f = Pair<V4f>;
using V8i = Pair<V4i>;

#define RL_LANEWISE(OP)                                          \
  template <typename V4>                                         \
  RL_INLINE Pair<V4> operator OP(Pair<V4> a, Pair<V4> b) {       \
    return {a.low OP b.low, a.high OP b.high};                   \
  }
RL_LANEWISE(+)
RL_LANEWISE(-)
RL_LANEWISE(*)
RL_LANEWISE(/)
RL_LANEWISE(^)
#undef RL_LANEWISE
template <typename V4>
RL_INLINE void operator+=(Pair<V4> &a, Pair<V4> b) {
  a = a + b;
}
template <typename V4>
RL_INLINE void operator^=(Pair<V4> &a, Pair<V4> b) {
  a = a ^ b;
}
RL_INLINE V8f operator-(V8f v) { return {-v.low, -v.high}; }
RL_INLINE V8i operator<<(V8i v, int bits) { return {v.low << bits, v.high << bits}; }
RL_INLINE V8i operator>>(V8i v, int bits) { return {v.low >> bits, v.high >> bits}; }

RL_INLINE V4f splat4(float x) { return V4f{x, x, x, x}; }
RL_INLINE V4i splat4(std::int32_t x) { return V4i{x, x, x, x}; }
RL_INLINE V8f splat(float x) { return {splat4(x), splat4(x)}; }
RL_INLINE V8i splat(std::int32_t x) { return {splat4(x), splat4(x)}; }

RL_INLINE V8f as_float(V8i v) { return {(V4f)v.low, (V4f)v.high}; }
RL_INLINE V8i as_bits(V8f v) { return {(V4i)v.low, (V4i)v.high}; }
RL_INLINE V4f absolute4(V4f v) { return (V4f)((V4i)v & splat4(0x7fffffff)); }
RL_INLINE V8f absolute(V8f v) { return {absolute4(v.low), absolute4(v.high)}; }

// a + b and a - b modulo 2^32.
typedef std::uint32_t V4u __attribute__((vector_size(16)));
RL_INLINE V4i plus4(V4i a, V4i b) { return (V4i)((V4u)a + (V4u)b); }
RL_INLINE V4i difference4(V4i a, V4i b) { return (V4i)((V4u)a - (V4u)b); }
RL_INLINE V8i plus(V8i a, V8i b) { return {plus4(a.low, b.low), plus4(a.high, b.high)}; }
RL_INLINE V8i difference(V8i a, V8i b) { return {difference4(a.low, b.low), difference4(a.high, b.high)}; }
#endif

// sum + a * b modulo 2^32. And sum + the eight products of a and b modulo 2^64: in which of four lanes each, is the
// processor's choice.
#if defined(__AVX2__)
typedef std::uint64_t V4u64 __attribute__((vector_size(32)));

RL_INLINE V8i plus_product(V8i sum, V8i a, V8i b) { return (V8i)((V8u)sum + (V8u)a * (V8u)b); }
RL_INLINE V4u64 plus_long_products(V4u64 sum, V8i a, V8i b) {
  const __m256i even = _mm256_mul_epi32((__m256i)a, (__m256i)b);
  const __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64((__m256i)a, 32), _mm256_srli_epi64((__m256i)b, 32));
  return sum + (V4u64)even + (V4u64)odd;
}
RL_INLINE std::uint64_t total(V4u64 v) { return v[0] + v[1] + v[2] + v[3]; }
#else
typedef std::uint64_t V2u64 __attribute__((vector_size(16)));
using V4u64 = Pair<V2u64>;

RL_INLINE V4i plus_product4(V4i sum, V4i a, V4i b) { return (V4i)((V4u)sum + (V4u)a * (V4u)b); }
RL_INLINE V8i plus_product(V8i sum, V8i a, V8i b) {
  return {plus_product4(sum.low, a.low, b.low), plus_product4(sum.high, a.high, b.high)};
}
#if defined(__ARM_NEON)
RL_INLINE V4u64 plus_long_products4(V4u64 sum, V4i a, V4i b) {
  return {(V2u64)vmlal_s32((int64x2_t)sum.low, vget_low_s32(a), vget_low_s32(b)),
          (V2u64)vmlal_high_s32((int64x2_t)sum.high, a, b)};
}
#else
RL_INLINE V4u64 plus_long_products4(V4u64 sum, V4i a, V4i b) {
  const auto product = [&](int i) { return static_cast<std::uint64_t>(std::int64_t{a[i]} * b[i]); };
  return {sum.low + V2u64{product(0), product(1)}, sum.high + V2u64{product(2), product(3)}};
}
#endif
RL_INLINE V4u64 plus_long_products(V4u64 sum, V8i a, V8i b) {
  return plus_long_products4(plus_long_products4(sum, a.low, b.low), a.high, b.high);
}
RL_INLINE std::uint64_t total(V4u64 v) { return v.low[0] + v.low[1] + v.high[0] + v.high[1]; }
#endif

template <typename V, typename T>
RL_INLINE V load(const T *p) {
  V v;
  if constexpr (std::is_class_v<V>) {  // copied as a whole, a pair would go through memory
    std::memcpy(&v.low, p, sizeof v.low);
    std::memcpy(&v.high, reinterpret_cast<const char *>(p) + sizeof v.low, sizeof v.high);
  } else {
    std::memcpy(&v, p, sizeof v);
  }
  return v;
}
template <typename V, typename T>
RL_INLINE void store(T *p, V v) {
  if constexpr (std::is_class_v<V>) {
    std::memcpy(p, &v.low, sizeof v.low);
    std::memcpy(reinterpret_cast<char *>(p) + sizeof v.low, &v.high, sizeof v.high);
  } else {
    std::memcpy(p, &v, sizeof v);
  }
}

// Lanes 0 to 3 and lanes 4 to 7 from different places.
#if defined(__AVX2__)
RL_INLINE V8i load_halves(const std::int32_t *low, const std::int32_t *high) {
  return (V8i)_mm256_set_m128i(load<__m128i>(high), load<__m128i>(low));
}
#else
RL_INLINE V8i load_halves(const std::int32_t *low, const std::int32_t *high) {
  return {load<V4i>(low), load<V4i>(high)};
}
#endif

// The first n lanes; the others are `rest`.
RL_INLINE V8f load_part(const float *p, int n, float rest = 0.0f) {
  if (n >= kLanes) return load<V8f>(p);
  float part[kLanes];
  for (int i = 0; i < kLanes; ++i) part[i] = i < n ? p[i] : rest;
  return load<V8f>(part);
}
RL_INLINE void store_part(float *p, V8f v, int n) {
  if (n >= kLanes) {
    store(p, v);
    return;
  }
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

// use(i, n) for every i in steps of eight: n is how many lanes are left, a constant but for the last.
struct Whole {
  constexpr operator int() const { return kLanes; }
};
template <typename Use>
RL_INLINE void each_eight(int width, Use use) {
  int i = 0;
#pragma GCC unroll 2
  for (; i + kLanes <= width; i += kLanes) use(i, Whole{});
  if (i < width) use(i, width - i);
}

// a > b ? a : b and a < b ? a : b, lane by lane, where b is a number: so b where a is NaN.
#if defined(__AVX2__)
RL_INLINE V8f larger(V8f a, V8f b) { return (V8f)_mm256_max_ps((__m256)a, (__m256)b); }
RL_INLINE V8f smaller(V8f a, V8f b) { return (V8f)_mm256_min_ps((__m256)a, (__m256)b); }
#elif defined(__ARM_NEON)
RL_INLINE V8f larger(V8f a, V8f b) { return {vmaxnmq_f32(a.low, b.low), vmaxnmq_f32(a.high, b.high)}; }
RL_INLINE V8f smaller(V8f a, V8f b) { return {vminnmq_f32(a.low, b.low), vminnmq_f32(a.high, b.high)}; }
#else
RL_INLINE V8f larger(V8f a, V8f b) {
  return {a.low > b.low ? a.low : b.low, a.high > b.high ? a.high : b.high};
}
RL_INLINE V8f smaller(V8f a, V8f b) {
  return {a.low < b.low ? a.low : b.low, a.high < b.high ? a.high : b.high};
}
#endif

// a >= least ? yes : no, lane by lane; so no where a is NaN.
#if defined(__AVX2__)
RL_INLINE V8f where_at_least(V8f a, float least, V8f yes, V8f no) { return a >= splat(least) ? yes : no; }
#elif defined(__ARM_NEON)
RL_INLINE V8f where_at_least(V8f a, float least, V8f yes, V8f no) {
  const float32x4_t border = splat4(least);
  return {vbslq_f32(vcgeq_f32(a.low, border), yes.low, no.low), vbslq_f32(vcgeq_f32(a.high, border), yes.high, no.high)};
}
#else
RL_INLINE V8f where_at_least(V8f a, float least, V8f yes, V8f no) {
  const V4f border = splat4(least);
  return {a.low >= border ? yes.low : no.low, a.high >= border ? yes.high : no.high};
}
#endif

// int32 as fp32, and 256 * high + low, which fp64 holds exactly, rounded once to fp32.
#if defined(__AVX2__)
RL_INLINE V8f to_float(V8i v) { return __builtin_convertvector(v, V8f); }
RL_INLINE V8f to_float(V8i high, V8i low) {
  return __builtin_convertvector(__builtin_convertvector(high, V8d) * 256.0 + __builtin_convertvector(low, V8d), V8f);
}
#else
#if defined(__ARM_NEON)
RL_INLINE V4f to_float4(V4i high, V4i low) {
  const int64x2_t first = vaddw_s32(vshll_n_s32(vget_low_s32(high), 8), vget_low_s32(low));
  const int64x2_t second = vaddw_high_s32(vshll_high_n_s32(high, 8), low);
  return vcvt_high_f32_f64(vcvt_f32_f64(vcvtq_f64_s64(first)), vcvtq_f64_s64(second));
}
#else
RL_INLINE V4f to_float4(V4i high, V4i low) {
  typedef double V4d __attribute__((vector_size(32)));
  return __builtin_convertvector(__builtin_convertvector(high, V4d) * 256.0 + __builtin_convertvector(low, V4d), V4f);
}
#endif
RL_INLINE V8f to_float(V8i v) { return {__builtin_convertvector(v.low, V4f), __builtin_convertvector(v.high, V4f)}; }
RL_INLINE V8f to_float(V8i high, V8i low) { return {to_float4(high.low, low.low), to_float4(high.high, low.high)}; }
#endif

// Eight int8 as int32, and eight int32 that fit as int8.
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
  return {vmovl_s16(vget_low_s16(words)), vmovl_high_s16(words)};
}
RL_INLINE void narrow(std::int8_t *p, V8i v) {
  vst1_s8(p, vmovn_s16(vuzp1q_s16(vreinterpretq_s16_s32(v.low), vreinterpretq_s16_s32(v.high))));
}
#else
RL_INLINE V8i widen(const std::int8_t *p) { return {V4i{p[0], p[1], p[2], p[3]}, V4i{p[4], p[5], p[6], p[7]}}; }
RL_INLINE void narrow(std::int8_t *p, V8i v) {
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<std::int8_t>(v[i]);
}
#endif

// Eight numbers from 0 to 16383, rounded to the nearest whole one, half to even, as two planes of 7 bits: c / 128 of all
// eight, then the rest of all eight. Adding 1.5 * 2^23 leaves the whole number in the low bits.
RL_INLINE void store_planes(std::int8_t *p, V8f v) {
  const V8i bits = as_bits(v + splat(12582912.0f));
#if defined(__AVX2__)
  const __m256i codes = _mm256_and_si256((__m256i)bits, _mm256_set1_epi32(0xffff));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  const __m128i planes = _mm_packus_epi16(_mm_srli_epi16(words, 7), _mm_and_si128(words, _mm_set1_epi16(127)));
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), planes);
#elif defined(__ARM_NEON)
  const uint16x8_t words = vuzp1q_u16(vreinterpretq_u16_s32(bits.low), vreinterpretq_u16_s32(bits.high));
  const uint8x16_t planes = vcombine_u8(vshrn_n_u16(words, 7), vand_u8(vmovn_u16(words), vdup_n_u8(127)));
  vst1q_s8(p, vreinterpretq_s8_u8(planes));
#else
  for (int i = 0; i < kLanes; ++i) {
    const std::uint32_t code = static_cast<std::uint32_t>(bits[i]) & 0xffff;
    p[i] = static_cast<std::int8_t>(code >> 7);
    p[kLanes + i] = static_cast<std::int8_t>(code & 127);
  }
#endif
}

// ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)), and the largest lane, of numbers.
#if defined(__ARM_NEON)
RL_INLINE float sum(V8f v) {
  const float32x4_t halves = v.low + v.high;
  return vpadds_f32(vadd_f32(vget_low_f32(halves), vget_high_f32(halves)));
}
RL_INLINE float maximum(V8f v) { return vmaxnmvq_f32(vmaxnmq_f32(v.low, v.high)); }
#else
RL_INLINE float sum(V8f v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }
RL_INLINE float maximum(V8f v) {
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = v[i] > m ? v[i] : m;
  return m;
}
#endif

// Nearest integer, half to even, for |x| < 2^22: adding 1.5 * 2^23 leaves the integer in the low mantissa bits.
RL_INLINE V8i nearest(V8f x) { return as_bits(x + splat(12582912.0f)) - splat(0x4B400000); }

// exp(x) with a relative error below 2e-7 for -87 <= x <= 88, its value at the nearer border beyond. x = n ln 2 + r,
// |r| <= ln 2 / 2, ln 2 in two parts so that r is exact; exp(r) by a polynomial of degree 7 (the minimax one of the
// Cephes library).
RL_INLINE V8f exponential(V8f x) {
  constexpr float kFactors[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  const V8f clamped = larger(smaller(x, splat(88.0f)), splat(-87.0f));
  const V8f shifted = clamped * splat(1.44269504f) + splat(12582912.0f);
  const V8f n = shifted - splat(12582912.0f);
  const V8f r = (clamped - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
  V8f p = splat(1.9875691500e-4f);
  for (const float factor : kFactors) p = p * r + splat(factor);
  p = (p * (r * r) + r) + splat(1.0f);
  return p * as_float(plus(as_bits(shifted) << 23, splat(127 << 23)));  // the shift leaves of `shifted` only n
}

// 2^x with a relative error below 3e-6 for -126 <= x <= 0, and exactly 0 from -127 down. x = n + r, |r| <= 1/2,
// which is exact; 2^r by a minimax polynomial that is 1 at 0, and n is added to its exponent. Of `Count` vectors side by
// side: each is a long chain of operations that wait for each other (formats/attention_spec.py is the specification).
template <int Count>
RL_INLINE void powers_of_two(V8f *x) {
  constexpr float kFactors[] = {9.582853876e-3f, 5.5906426162e-2f, 2.4024099112e-1f, 6.9312417507e-1f, 1.0f};
  V8f shifted[Count], r[Count], p[Count];
  for (int i = 0; i < Count; ++i) {
    const V8f clamped = larger(x[i], splat(-127.0f));
    shifted[i] = clamped + splat(12582912.0f);
    r[i] = clamped - (shifted[i] - splat(12582912.0f));
    p[i] = splat(kFactors[0]);
  }
  for (std::size_t k = 1; k < sizeof kFactors / sizeof *kFactors; ++k)
    for (int i = 0; i < Count; ++i) p[i] = p[i] * r[i] + splat(kFactors[k]);
  for (int i = 0; i < Count; ++i) x[i] = as_float(plus(as_bits(p[i]), as_bits(shifted[i]) << 23));
}
RL_INLINE float power_of_two(float x) {
  V8f v = splat(x);
  powers_of_two<1>(&v);
  return v[0];
}

// tanh(x) with a relative error below 2e-7; odd, exactly 1 from about 9 on, NaN where x is. Near zero by a polynomial
// (the minimax one of the Cephes library), elsewhere 1 - 2 / (exp(2 x) + 1).
RL_INLINE V8f hyperbolic_tangent(V8f x) {
  const V8f t = absolute(x), z = t * t;
  V8f p = splat(-5.70498872745e-3f);
  p = p * z + splat(2.06390887954e-2f);
  p = p * z + splat(-5.37397155531e-2f);
  p = p * z + splat(1.33314422036e-1f);
  p = p * z + splat(-3.33332819422e-1f);
  const V8f small = p * z * t + t, large = splat(1.0f) - splat(2.0f) / (exponential(t + t) + splat(1.0f));
  return as_float(as_bits(where_at_least(t, 0.625f, large, small)) ^ (as_bits(x) ^ as_bits(t)));
}

// c tanh(x / c), of which it takes c and 1 / c.
RL_INLINE V8f soft_capped(V8f x, float cap, float inverse) {
  return splat(cap) * hyperbolic_tangent(x * splat(inverse));
}

}  // namespace rl::RL_ISA
