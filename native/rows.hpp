// Operations on one row of floats: norm, quantisation, gated activation, Hadamard, rotation, one attention head.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace rl::RL_ISA {

// 1 / sqrt(mean of squares + eps).
RL_INLINE float inverse_rms(const float *x, int width, float eps) {
  V8f squares = splat(0.0f);
  for (int i = 0; i < width; i += kLanes) {
    const V8f v = load_part(x + i, width - i);
    squares += v * v;
  }
  return 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps);
}

static void norm(const float *x, int width, const float *gain, float eps, float *y) {
  const V8f inverse = splat(inverse_rms(x, width, eps));
  for (int i = 0; i < width; i += kLanes) {
    V8f v = load_part(x + i, width - i) * inverse;
    if (gain != nullptr) v *= load_part(gain + i, width - i);
    store_part(y + i, v, width - i);
  }
}

RL_INLINE float largest(const float *x, int width) {
  V8f most = splat(0.0f);
  for (int i = 0; i < width; i += kLanes) most = larger(absolute(load_part(x + i, width - i)), most);
  return maximum(most);
}

// Symmetric int8, exactly as formats/activations.py says; zeros up to the padded stride.
static void quant(const float *x, int width, const QuantOut &out) {
  const float top = out.planes == 1 ? 127.0f : 32512.0f;
  const float most = largest(x, width);
  float inverse = top / most;
  const bool usable = inverse <= 3.402823466e38f;  // false for infinity and NaN
  if (!usable) inverse = 0.0f;
  *out.scale = usable ? most / top : 0.0f;
  std::int8_t *high = out.q;
  std::int8_t *low = out.q + out.stride;
  for (int i = 0; i < out.stride; i += kLanes) {
    const V8i q = i < width ? nearest(load_part(x + i, width - i) * splat(inverse)) : splat(0);
    if (out.planes == 1) {
      narrow(high + i, q);
    } else {
      const V8i upper = (q + splat(128)) >> 8;
      narrow(high + i, upper);
      narrow(low + i, q - (upper << 8));
    }
  }
}

static void norm_quant(const float *x, int width, const float *gain, float eps, const QuantOut &out,
                       Scratch &scratch) {
  norm(x, width, gain, eps, scratch.row);
  quant(scratch.row, width, out);
}

// Butterflies of distance 1, 2 and 4 inside one vector: partner + own, the own one negated in the upper half.
RL_INLINE V8f butterfly(V8f v, V8i partner, V8i negative) {
  return __builtin_shuffle(v, partner) + as_float(as_bits(v) ^ negative);
}

// Normalised Hadamard transform of one block, in place; block is a power of two.
static void hadamard(float *x, int block) {
  if (block < kLanes) {
    for (int half = 1; half < block; half *= 2)
      for (int i = 0; i < block; i += 2 * half)
        for (int j = i; j < i + half; ++j) {
          const float a = x[j], b = x[j + half];
          x[j] = a + b;
          x[j + half] = a - b;
        }
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(block));
    for (int i = 0; i < block; ++i) x[i] *= scale;
    return;
  }
  constexpr std::int32_t minus = INT32_MIN;
  for (int i = 0; i < block; i += kLanes) {
    V8f v = load<V8f>(x + i);
    v = butterfly(v, V8i{1, 0, 3, 2, 5, 4, 7, 6}, V8i{0, minus, 0, minus, 0, minus, 0, minus});
    v = butterfly(v, V8i{2, 3, 0, 1, 6, 7, 4, 5}, V8i{0, 0, minus, minus, 0, 0, minus, minus});
    v = butterfly(v, V8i{4, 5, 6, 7, 0, 1, 2, 3}, V8i{0, 0, 0, 0, minus, minus, minus, minus});
    store(x + i, v);
  }
  for (int half = kLanes; half < block; half *= 2)
    for (int i = 0; i < block; i += 2 * half)
      for (int j = i; j < i + half; j += kLanes) {
        const V8f a = load<V8f>(x + j), b = load<V8f>(x + j + half);
        store(x + j, a + b);
        store(x + j + half, a - b);
      }
  const V8f scale = splat(1.0f / __builtin_sqrtf(static_cast<float>(block)));
  for (int i = 0; i < block; i += kLanes) store(x + i, load<V8f>(x + i) * scale);
}

static void silu_quant(const float *gate, const float *up, int width, int block, const QuantOut &out,
                       Scratch &scratch) {
  for (int i = 0; i < width; i += kLanes) {
    const V8f g = load_part(gate + i, width - i);
    const V8f h = (g / (splat(1.0f) + exponential(-g))) * load_part(up + i, width - i);
    store_part(scratch.row + i, h, width - i);
  }
  if (block > 1)
    for (int i = 0; i < width; i += block) hadamard(scratch.row + i, block);
  quant(scratch.row, width, out);
}

// y[i] = sum over j, rising, of x[j] * mix[j][i] (or mix[i][j] when transposed), blocks of `block` floats.
RL_INLINE void mix_blocks(const float *x, int block, int odd, bool transposed, const float *mix, float *y) {
  for (int i = 0; i < odd; ++i)
    for (int k = 0; k < block; k += kLanes) {
      V8f total = splat(0.0f);
      for (int j = 0; j < odd; ++j)
        total += load_part(x + j * block + k, block - k) * splat(transposed ? mix[i * odd + j] : mix[j * odd + i]);
      store_part(y + i * block + k, total, block - k);
    }
}

static void rotate(const float *x, int block, int odd, bool inverse, const float *signs, const float *mix,
                   const float *gain, float *y, Scratch &scratch) {
  const int width = block * odd;
  float *turned = scratch.row;
  if (inverse) {
    mix_blocks(x, block, odd, true, mix, turned);
  } else {
    for (int i = 0; i < width; i += kLanes)
      store_part(turned + i, load_part(x + i, width - i) * load_part(signs + i, width - i), width - i);
  }
  for (int i = 0; i < odd; ++i) hadamard(turned + i * block, block);
  if (inverse) {
    for (int i = 0; i < width; i += kLanes)
      store_part(y + i, load_part(turned + i, width - i) * load_part(signs + i, width - i), width - i);
  } else {
    mix_blocks(turned, block, odd, false, mix, y);
  }
  if (gain != nullptr)
    for (int i = 0; i < width; i += kLanes)
      store_part(y + i, load_part(y + i, width - i) * load_part(gain + i, width - i), width - i);
}

// Pairs (i, i + half) turn by the angles whose cosines and sines are given.
static void head_quant(const float *x, int head_dim, int stride, const float *gain, float eps, const float *angle,
                       std::int8_t *q, float *scale, Scratch &scratch) {
  const float *source = x;
  float *row = scratch.row;
  if (gain != nullptr) {
    norm(x, head_dim, gain, eps, row);
    source = row;
  }
  if (angle != nullptr) {
    const int half = head_dim / 2;
    for (int i = 0; i < half; i += kLanes) {
      const V8f c = load_part(angle + i, half - i), s = load_part(angle + half + i, half - i);
      const V8f a = load_part(source + i, half - i), b = load_part(source + half + i, half - i);
      store_part(row + i, a * c - b * s, half - i);
      store_part(row + half + i, b * c + a * s, half - i);
    }
    source = row;
  }
  quant(source, head_dim, QuantOut{q, scale, stride, 1});
}

}  // namespace rl::RL_ISA
