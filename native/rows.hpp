// Operations on one row of floats: norm, quantisation, gated activation, Hadamard, rotation, one attention head.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace rl::RL_ISA {

// 1 / sqrt(mean of squares + eps).
RL_INLINE float inverse_rms(const float *x, int width, float eps) {
  V8f squares = splat(0.0f);
  each_eight(width, [&](int i, auto n) {
    const V8f v = load_part(x + i, n);
    squares += v * v;
  });
  return 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps);
}

// y = a * b, lane by lane.
RL_INLINE void multiply_rows(const float *a, const float *b, int width, float *y) {
  each_eight(width, [&](int i, auto n) { store_part(y + i, load_part(a + i, n) * load_part(b + i, n), n); });
}

static float inverse_root(const float *x, int width, float eps) { return inverse_rms(x, width, eps); }

RL_INLINE void norm_by(const float *x, int width, const float *gain, float inverse_root, float *y) {
  const V8f inverse = splat(inverse_root);
  if (gain == nullptr)
    each_eight(width, [&](int i, auto n) { store_part(y + i, load_part(x + i, n) * inverse, n); });
  else
    each_eight(width, [&](int i, auto n) {
      store_part(y + i, load_part(x + i, n) * inverse * load_part(gain + i, n), n);
    });
}

static void norm(const float *x, int width, const float *gain, float eps, float *y) {
  norm_by(x, width, gain, inverse_rms(x, width, eps), y);
}

static void norm_add(const float *x, const float *residual, int width, const float *gain, float eps, float *y) {
  const V8f inverse = splat(inverse_rms(x, width, eps));
  each_eight(width, [&](int i, auto n) {
    V8f normed = load_part(x + i, n) * inverse;
    if (gain != nullptr) normed = normed * load_part(gain + i, n);
    store_part(y + i, load_part(residual + i, n) + normed, n);
  });
}

static void soft_cap(const float *x, int width, float scale, float softcap, float *y) {
  if (softcap == 0.0f)
    each_eight(width, [&](int i, auto n) { store_part(y + i, load_part(x + i, n) * splat(scale), n); });
  else
    each_eight(width, [&](int i, auto n) {
      store_part(y + i, soft_capped(load_part(x + i, n), softcap, scale / softcap), n);
    });
}

RL_INLINE float largest(const float *x, int width) {
  V8f most = splat(0.0f);
  each_eight(width, [&](int i, auto n) { most = larger(absolute(load_part(x + i, n)), most); });
  return maximum(most);
}

// Where the element of a row from i on goes, a multiple of eight: side by side, or in the atoms of the NPU's layout.
struct InOrder {
  std::int64_t operator()(int i) const { return i; }
};
struct InAtoms {
  static_assert(kAtom == 1 << 4);
  std::int64_t stride;
  std::int64_t operator()(int i) const { return (i >> 4) * stride + (i & (kAtom - 1)); }
};

// Symmetric int8, exactly as in formats/activations.py; zeros up to the padded stride.
template <typename Place>
RL_INLINE void quant_to(const float *x, int width, const QuantOut &out, std::int8_t *low, Place place) {
  const float top = out.planes == 1 ? 127.0f : 32512.0f;
  const float most = largest(x, width);
  float inverse = top / most;
  const bool usable = inverse <= 3.402823466e38f;  // false for infinity and NaN
  if (!usable) inverse = 0.0f;
  *out.scale = usable ? most / top : 0.0f;
  std::int8_t *high = out.q;
  if (out.planes == 1)
    each_eight(width, [&](int i, auto n) { narrow(high + place(i), nearest(load_part(x + i, n) * splat(inverse))); });
  else
    each_eight(width, [&](int i, auto n) {
      const V8i q = nearest(load_part(x + i, n) * splat(inverse));
      const V8i upper = (q + splat(128)) >> 8;
      narrow(high + place(i), upper);
      narrow(low + place(i), q - (upper << 8));
    });
  for (int i = (width + kLanes - 1) / kLanes * kLanes; i < out.stride; i += kLanes) {
    narrow(high + place(i), splat(0));
    if (out.planes == 2) narrow(low + place(i), splat(0));
  }
}

static void quant_in_order(const float *x, int width, const QuantOut &out) {
  quant_to(x, width, out, out.q + out.stride, InOrder{});
}
static void quant_in_atoms(const float *x, int width, const QuantOut &out) {
  quant_to(x, width, out, out.q + kAtom, InAtoms{out.atom_stride});
}
RL_INLINE void quant_row(const float *x, int width, const QuantOut &out) {
  (out.atom_stride == 0 ? quant_in_order : quant_in_atoms)(x, width, out);
}

// Butterflies of distance 1, 2 and 4 inside eight neighbours: a + b where a was, a - b where b was.
#if defined(__AVX2__)
RL_INLINE V8f butterfly(V8f v, V8i partner, V8i negative) {
  return __builtin_shuffle(v, partner) + as_float(as_bits(v) ^ negative);
}
RL_INLINE V8f butterflies(V8f v) {
  constexpr std::int32_t minus = INT32_MIN;
  v = butterfly(v, V8i{1, 0, 3, 2, 5, 4, 7, 6}, V8i{0, minus, 0, minus, 0, minus, 0, minus});
  v = butterfly(v, V8i{2, 3, 0, 1, 6, 7, 4, 5}, V8i{0, 0, minus, minus, 0, 0, minus, minus});
  return butterfly(v, V8i{4, 5, 6, 7, 0, 1, 2, 3}, V8i{0, 0, 0, 0, minus, minus, minus, minus});
}
#else
// The even lanes of both halves, then their odd ones.
RL_INLINE V8f parted(V8f v) {
  return {__builtin_shuffle(v.low, v.high, V4i{0, 2, 4, 6}), __builtin_shuffle(v.low, v.high, V4i{1, 3, 5, 7})};
}
RL_INLINE V8f sum_and_difference(V8f v) { return {v.low + v.high, v.low - v.high}; }
RL_INLINE V8f butterflies(V8f v) {
  v = sum_and_difference(parted(v));  // sums of 01 23 45 67, then differences
  v = sum_and_difference(parted(v));
  return sum_and_difference(parted(v));
}
#endif

// Butterflies of distance 1, 2, .. Count / 2 among whole vectors, shorter ones first.
template <int Count>
RL_INLINE void butterflies_among(V8f (&v)[8], int first) {
  if constexpr (Count > 1) {
    butterflies_among<Count / 2>(v, first);
    butterflies_among<Count / 2>(v, first + Count / 2);
#pragma GCC unroll 4
    for (int k = first; k < first + Count / 2; ++k) {
      const V8f a = v[k], b = v[k + Count / 2];
      v[k] = a + b;
      v[k + Count / 2] = a - b;
    }
  }
}

// Butterflies of distance half, 2 half, .. Count / 2 * half.
template <int Count>
RL_INLINE void butterfly_stages(float *x, int block, int half) {
  for (int i = 0; i < block; i += Count * half)
    for (int j = i; j < i + half; j += kLanes) {
      V8f v[8];
#pragma GCC unroll 8
      for (int k = 0; k < Count; ++k) v[k] = load<V8f>(x + j + k * half);
      butterflies_among<Count>(v, 0);
#pragma GCC unroll 8
      for (int k = 0; k < Count; ++k) store(x + j + k * half, v[k]);
    }
}

// Normalised Hadamard transform of one block, in place; block is a power of two. Distances rise.
static void hadamard(float *x, int block) {
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(block));
  if (block < kLanes) {
    for (int half = 1; half < block; half *= 2)
      for (int i = 0; i < block; i += 2 * half)
        for (int j = i; j < i + half; ++j) {
          const float a = x[j], b = x[j + half];
          x[j] = a + b;
          x[j + half] = a - b;
        }
    for (int i = 0; i < block; ++i) x[i] *= scale;
    return;
  }
  for (int i = 0; i < block; i += kLanes) store(x + i, butterflies(load<V8f>(x + i)));
  int half = kLanes;
  for (; 8 * half <= block; half *= 8) butterfly_stages<8>(x, block, half);
  if (4 * half <= block) butterfly_stages<4>(x, block, half), half *= 4;
  if (2 * half <= block) butterfly_stages<2>(x, block, half);
  for (int i = 0; i < block; i += kLanes) store(x + i, load<V8f>(x + i) * splat(scale));
}

// The row, each block of it transformed in place if there are blocks, as codes.
RL_INLINE void quant_blocks(float *row, int width, int block, const QuantOut &out) {
  if (block > 1)
    for (int i = 0; i < width; i += block) hadamard(row + i, block);
  quant_row(row, width, out);
}

static void quant(const float *x, int width, int block, const QuantOut &out, Scratch &scratch) {
  if (block <= 1) return quant_row(x, width, out);
  std::memcpy(scratch.row, x, sizeof(float) * static_cast<std::size_t>(width));
  quant_blocks(scratch.row, width, block, out);
}

static void norm_quant(const float *x, int width, const float *gain, float eps, int block, const QuantOut &out,
                       Scratch &scratch) {
  norm(x, width, gain, eps, scratch.row);
  quant_blocks(scratch.row, width, block, out);
}

// Both are the gate times 1 / (1 + exp(-a)): GELU by tanh because (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)).
struct Silu {
  RL_INLINE V8f exponent(V8f g) { return g; }
};
struct GeluTanh {  // 2 sqrt(2 / pi), and 0.044715 times it
  RL_INLINE V8f exponent(V8f g) { return g * (splat(1.59576912f) + splat(0.0713548163f) * (g * g)); }
};

template <typename Activation>
RL_INLINE void gated(const float *gate, const float *up, int width, float *y) {
  each_eight(width, [&](int i, auto n) {
    const V8f g = load_part(gate + i, n);
    store_part(y + i, (g / (splat(1.0f) + exponential(-Activation::exponent(g)))) * load_part(up + i, n), n);
  });
}

static void gated_quant(const float *gate, const float *up, int width, int activation, int block, const QuantOut &out,
                        Scratch &scratch) {
  if (activation == RL_SILU)
    gated<Silu>(gate, up, width, scratch.row);
  else
    gated<GeluTanh>(gate, up, width, scratch.row);
  quant_blocks(scratch.row, width, block, out);
}

// y[i] = sum over j, rising, of x[j] * mix[j][i] (or mix[i][j] when transposed), blocks of `block` floats.
RL_INLINE void mix_blocks(const float *x, int block, int odd, bool transposed, const float *mix, float *y) {
  for (int i = 0; i < odd; ++i)
    each_eight(block, [&](int k, auto n) {
      V8f total = splat(0.0f);
      for (int j = 0; j < odd; ++j)
        total += load_part(x + j * block + k, n) * splat(transposed ? mix[i * odd + j] : mix[j * odd + i]);
      store_part(y + i * block + k, total, n);
    });
}

static void rotate(const float *x, int block, int odd, bool inverse, const float *signs, const float *mix,
                   const float *gain, float *y, Scratch &scratch) {
  const int width = block * odd;
  float *rotated = scratch.row;
  if (inverse)
    mix_blocks(x, block, odd, true, mix, rotated);
  else
    multiply_rows(x, signs, width, rotated);
  for (int i = 0; i < odd; ++i) hadamard(rotated + i * block, block);
  if (inverse)
    multiply_rows(rotated, signs, width, y);
  else
    mix_blocks(rotated, block, odd, false, mix, y);
  if (gain != nullptr) multiply_rows(y, gain, width, y);
}

// Pairs (i, i + half) rotate by the angles whose cosines and sines are given.
static void head_quant(const float *x, int head_dim, int stride, const HeadTurn &turn, std::int8_t *q, float *scale,
                       Scratch &scratch) {
  const float *source = x;
  float *row = scratch.row;
  if (turn.gain != nullptr) {
    norm_by(x, head_dim, turn.gain, turn.inverse == nullptr ? inverse_rms(x, head_dim, turn.eps) : *turn.inverse, row);
    source = row;
  }
  if (turn.angle != nullptr) {
    const int turned = turn.turned, half = turned / 2;
    if (turned < head_dim && source == x)
      std::memcpy(row + turned, x + turned, sizeof(float) * static_cast<std::size_t>(head_dim - turned));
    each_eight(half, [&](int i, auto n) {
      const V8f c = load_part(turn.angle + i, n), s = load_part(turn.angle + half + i, n);
      const V8f a = load_part(source + i, n), b = load_part(source + half + i, n);
      store_part(row + i, a * c - b * s, n);
      store_part(row + half + i, b * c + a * s, n);
    });
    source = row;
  }
  quant_in_order(source, head_dim, QuantOut{q, scale, stride, 1, 0});
}

}  // namespace rl::RL_ISA
