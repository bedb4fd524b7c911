// What a program is checked for before it is believed.
#include <algorithm>

#include "error.hpp"
#include "program.hpp"

namespace rl {
namespace {

constexpr int kMaxRows = 1 << 16, kMaxWidth = 1 << 24, kMaxHeads = 4096, kMaxLayers = 4096, kMaxPages = 1 << 24, kMaxContext = 1 << 30;
constexpr int kMaxCols = 1 << 17;  // keeps every int32 sum of products below 2^31

bool power_of_two(int n) { return n > 0 && (n & (n - 1)) == 0; }

constexpr float kLargestFloat = 3.402823466e38f;

bool aligned(const void *p) { return reinterpret_cast<std::uintptr_t>(p) % 64 == 0; }

}  // namespace

int Program::check_shape(bool uses_cache) const {
  const rl_shape &s = shape_;
  if (s.max_rows < 1 || s.max_rows > kMaxRows)
    return fail("a program for %d rows a step, expected 1 to %d", s.max_rows, kMaxRows);
  if (s.logit_rows < 0 || s.logit_rows > s.max_rows)
    return fail("a program that draws from %d rows of a step, expected 0 to %d, its rows", s.logit_rows, s.max_rows);
  if (!uses_cache) return 0;
  if (s.kv_heads < 1 || s.heads < s.kv_heads || s.heads % s.kv_heads != 0 || s.heads > kMaxHeads)
    return fail("%d query heads cannot share %d key/value heads, expected a multiple of these, at most %d", s.heads,
                s.kv_heads, kMaxHeads);
  if (s.head_dim < 2 || s.head_dim > kMostHeadDim || s.head_dim % 2 != 0)
    return fail("a head has %d dimensions, expected an even number from 2 to %d", s.head_dim, kMostHeadDim);
  if (!power_of_two(s.page_tokens) || s.page_tokens < 8 || s.page_tokens > kSplit)
    return fail("a KV page has %d tokens, expected a power of two from 8 to %d", s.page_tokens, kSplit);
  if (s.context < 1 || s.context > kMaxContext)
    return fail("the KV cache is for a context of %d tokens, expected 1 to %d", s.context, kMaxContext);
  if (s.pools < 1 || pools_.size() != static_cast<std::size_t>(s.pools))
    return fail("the KV cache has %d pools (%zu given), expected 1 to %d", s.pools, pools_.size(), kMaxPools);
  for (const rl_pool &pool : pools_) {
    if (pool.layers < 1 || pool.pages < 1 || pool.layers > kMaxLayers || pool.pages > kMaxPages)
      return fail("a KV pool has %d layers and %d pages, expected 1 to %d layers and 1 to %d pages", pool.layers,
                  pool.pages, kMaxLayers, kMaxPages);
    if (pool.window < 0 || pool.window > kMaxContext)
      return fail("a KV pool has a window of %d positions, expected 1 to %d, or 0 for none", pool.window, kMaxContext);
  }
  return 0;
}

int Program::check_buffers() const {
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    const rl_buffer &b = buffers_[i];
    const bool kind_known = b.kind == RL_FLOAT || b.kind == RL_INT8;
    if (!kind_known || b.width < 1 || b.width > kMaxWidth || b.planes < 1 || b.planes > 2 ||
        (b.planes == 2 && b.kind != RL_INT8))
      return fail("buffer %zu has kind %d, width %d and %d planes, which is not a valid buffer", i, b.kind, b.width,
                  b.planes);
    if (b.slot < 0 || static_cast<std::size_t>(b.slot) >= buffers_.size())
      return fail("buffer %zu lies in slot %d; slots are numbered below the number of buffers, %zu", i, b.slot,
                  buffers_.size());
  }
  return 0;
}

int Program::check_bands() const {
  for (std::size_t i = 0; i < bands_.size(); ++i) {
    const rl_band &b = bands_[i];
    if (b.bits != 2 && b.bits != 3 && b.bits != 4 && b.bits != 8)
      return fail("band %zu has %d bits, expected 2, 3, 4 or 8", i, b.bits);
    if (b.rows < 1 || b.rows > kMaxWidth || b.cols < 1 || b.cols > kMaxCols || b.out_column < 0 ||
        b.out_column > kMaxWidth)
      return fail("band %zu has %d rows, %d inputs and output column %d, which is out of range", i, b.rows, b.cols,
                  b.out_column);
    if (b.codes == nullptr || b.scale == nullptr || (b.bits < 8 && (b.index == nullptr || b.tables == nullptr)))
      return fail("band %zu lacks codes, scales, or the index and tables that %d bits need", i, b.bits);
    if (!aligned(b.codes) || (b.bits < 8 && !aligned(b.index)))
      return fail("the codes or index of band %zu do not start on 64 bytes; align them", i);
  }
  return 0;
}

namespace {

// The checks that operations share; every method leaves a sentence and returns false.
struct OpCheck {
  const rl_op &op;
  int number;
  const Array<rl_buffer> &buffers;
  const Array<rl_band> &bands;

  const rl_buffer *find(const char *what, int buffer) const {
    if (buffer >= 0 && static_cast<std::size_t>(buffer) < buffers.size())
      return &buffers[static_cast<std::size_t>(buffer)];
    fail("operation %d: %s is buffer %d, but the program has %zu", number, what, buffer, buffers.size());
    return nullptr;
  }
  bool is(const char *what, int buffer, int kind, int width, bool exact = false) const {
    const rl_buffer *b = find(what, buffer);
    if (b == nullptr) return false;
    if (b->kind == kind && (exact ? b->width == width : b->width >= width)) return true;
    fail("operation %d: %s has kind %d and width %d, expected kind %d and width %s%d", number, what, b->kind, b->width,
         kind, exact ? "" : "at least ", width);
    return false;
  }
  bool quantised(int width) const {
    return is("the quantised output", op.out[0], RL_INT8, width, true) && is("the scale", op.out[1], RL_FLOAT, 1, true);
  }
  bool has_bands(bool same_cols) const {
    if (op.bands < 1 || op.first_band < 0 || op.first_band > static_cast<int>(bands.size()) - op.bands) {
      fail("operation %d uses bands %d .. %d, but the program has %zu", number, op.first_band,
           op.first_band + op.bands - 1, bands.size());
      return false;
    }
    for (int b = 0; same_cols && b < op.bands; ++b)
      if (band(b).cols != band(0).cols) {
        fail("operation %d has bands of %d and %d inputs, expected the same number", number, band(0).cols,
             band(b).cols);
        return false;
      }
    return true;
  }
  const rl_band &band(int b) const { return bands[static_cast<std::size_t>(op.first_band + b)]; }
  bool on_all_rows() const {
    if (op.on_logits == 0) return true;
    fail("operation %d of kind %d cannot work on the logit rows", number, op.code);
    return false;
  }
};

// `continues`: the next operation is the head's next part.
bool check_linear(const OpCheck &c, int width, int step_width, bool continues) {
  const rl_op &op = c.op;
  if (!c.has_bands(true) || !c.is("the input", op.in[0], RL_INT8, c.band(0).cols, true)) return false;
  if (!c.is("the scale", op.in[1], RL_FLOAT, 1, true)) return false;
  if (op.in[2] != -1 && !c.is("the residual", op.in[2], RL_FLOAT, width)) return false;
  if (op.out[0] != kStepLogits) return c.is("the output", op.out[0], RL_FLOAT, width);
  if (op.on_logits == 0 || (continues ? width > step_width : width != step_width)) {
    fail("operation %d writes %d logits of all rows; step logits are %d of the logit rows", c.number, width,
         step_width);
    return false;
  }
  return true;
}

// A row operation's output of `width`: a buffer, or the step logits of a program whose result is such rows.
bool check_row_output(const OpCheck &c, int width, int step_width) {
  const rl_op &op = c.op;
  if (op.out[0] != kStepLogits) return c.is("the output", op.out[0], RL_FLOAT, width, true);
  if ((op.on_logits != 0 || op.code == RL_GATHER) && width == step_width) return true;
  fail("operation %d writes %d channels of all rows, or not as many as other step logits, which are %d of the logit rows",
       c.number, width, step_width);
  return false;
}

bool check_embed(const OpCheck &c) {
  if (!c.on_all_rows() || !c.has_bands(true) || !c.is("the output", c.op.out[0], RL_FLOAT, c.band(0).cols, true))
    return false;
  int next = 0;
  for (int b = 0; b < c.op.bands; next += c.band(b).rows, ++b)
    if (c.band(b).out_column != next) {
      fail("operation %d: band %d of the embedding starts at token %d, expected %d", c.number, b,
           c.band(b).out_column, next);
      return false;
    }
  return true;
}

bool check_attention_buffers(const OpCheck &c, int q, int sq, const rl_shape &shape) {
  const auto stride = static_cast<int>(round_up(shape.head_dim, kTile));
  return c.on_all_rows() && c.is("the queries", q, RL_INT8, shape.heads * stride, true) &&
         c.is("the scales of the queries", sq, RL_FLOAT, shape.heads, true);
}

bool check_weight(const OpCheck &c, const float *weight, const char *what) {
  if (weight != nullptr) return true;
  fail("operation %d lacks its %s", c.number, what);
  return false;
}

bool check_block(const OpCheck &c, int width, int block) {
  if (block == 0 || (power_of_two(block) && width % block == 0)) return true;
  fail("operation %d: a Hadamard block of %d does not divide %d channels", c.number, block, width);
  return false;
}

bool check_positive(const OpCheck &c, float real, const char *what) {
  if (real > 0.0f && real <= kLargestFloat) return true;
  fail("operation %d has the %s %g, expected a number above 0", c.number, what, static_cast<double>(real));
  return false;
}
bool check_from_zero(const OpCheck &c, float real, const char *what) {
  if (real >= 0.0f && real <= kLargestFloat) return true;
  fail("operation %d has the %s %g, expected a number from 0", c.number, what, static_cast<double>(real));
  return false;
}

// Step logits that nobody wrote cannot be changed.
bool check_logits(const OpCheck &c, int step_width) {
  const rl_op &op = c.op;
  if (op.on_logits == 0 || op.out[0] != kStepLogits || step_width == 0) {
    fail("operation %d changes step logits, which no operation before it writes, or is not on the logit rows", c.number);
    return false;
  }
  return check_positive(c, op.real[0], "scale") && check_from_zero(c, op.real[1], "softcap");
}

// How heads turn, how their norms span them, and how queries grow.
bool check_turns(const OpCheck &c, const rl_shape &shape) {
  const rl_op &op = c.op;
  const int turned = op.dim[kTurned], whole = op.dim[kWhole];
  if (turned < 0 || turned > shape.head_dim || turned % 2 != 0) {
    fail("operation %d turns %d of the %d channels of a head, expected an even number of them", c.number, turned,
         shape.head_dim);
    return false;
  }
  if (turned != 0 && !check_weight(c, op.weight[0], "rotary frequencies")) return false;
  if (turned == 0 && op.weight[0] != nullptr) {
    fail("operation %d has rotary frequencies, but no channels that turn", c.number);
    return false;
  }
  if (whole != 0 && whole != 1) {
    fail("operation %d has norms of kind %d, expected 0 (of each head) or 1 (of all heads together)", c.number, whole);
    return false;
  }
  return (turned == 0 || check_positive(c, op.real[1], "factor on cosines and sines")) &&
         check_from_zero(c, op.real[0], "eps") && check_from_zero(c, op.real[3], "growth") &&
         (op.real[3] == 0.0f || check_positive(c, op.real[4], "growth length"));
}

// The score bias and its terms are there together, or not at all.
bool check_terms(const OpCheck &c, int terms, const rl_shape &shape) {
  const bool biased = c.op.weight[kScoreBias] != nullptr;
  if (biased == (terms >= 0))
    return !biased || c.is("the terms of the score bias", terms, RL_FLOAT, shape.heads * shape.head_dim, true);
  fail("operation %d has %s; both or none are needed", c.number,
       biased ? "a score bias and no buffer for its terms" : "a buffer for the terms of a score bias, and no bias");
  return false;
}

bool check_layer(const OpCheck &c, const Array<rl_pool> &pools) {
  const int layer = c.op.dim[0], pool = c.op.dim[1];
  if (pool < 0 || static_cast<std::size_t>(pool) >= pools.size()) {
    fail("operation %d uses KV pool %d of %zu", c.number, pool, pools.size());
    return false;
  }
  const int layers = pools[static_cast<std::size_t>(pool)].layers;
  if (layer >= 0 && layer < layers) return true;
  fail("operation %d belongs to layer %d of %d in KV pool %d", c.number, layer, layers, pool);
  return false;
}

}  // namespace

// Whether an operation and the next one are parts of one head: a head may be several linears, one after the other.
bool Program::continues(int number) const {
  const auto part = [&](std::size_t op) { return ops_[op].code == RL_LINEAR && ops_[op].out[0] == kStepLogits; };
  const auto op = static_cast<std::size_t>(number);
  return part(op) && op + 1 < ops_.size() && part(op + 1);
}

// Of the head whose first part an operation is.
int Program::head_width(int number) const {
  int last = number;
  while (continues(last)) ++last;
  const rl_op &op = ops_[static_cast<std::size_t>(last)];
  const bool known = op.bands > 0 && op.first_band >= 0 && op.first_band <= static_cast<int>(bands_.size()) - op.bands;
  return known ? logits_width(op) : 0;
}

int Program::check_op(int number) {
  const rl_op &op = ops_[static_cast<std::size_t>(number)];
  const OpCheck c{op, number, buffers_, bands_};
  bool good = op.on_logits == 0 || op.on_logits == 1;
  if (!good) return fail("operation %d has on_logits %d, expected 0 or 1", number, op.on_logits);
  const auto input_width = [&] {
    const rl_buffer *b = c.find("the input", op.in[0]);
    return b == nullptr ? 0 : b->width;
  };
  const auto row_output = [&](int width) {
    if (op.out[0] == kStepLogits && vocab_ == 0) vocab_ = width;
    return check_row_output(c, width, vocab_);
  };
  switch (op.code) {
    case RL_EMBED: good = check_embed(c) && check_positive(c, op.real[0], "scale"); break;
    case RL_NORM_QUANT:
    case RL_QUANT: {
      const int width = input_width();
      good = width > 0 && c.is("the input", op.in[0], RL_FLOAT, width) && c.quantised(width) &&
             check_block(c, width, op.dim[0]) && check_from_zero(c, op.real[0], "eps");
      break;
    }
    case RL_NORM_ADD: {
      const int width = input_width();
      good = width > 0 && c.is("the input", op.in[0], RL_FLOAT, width) &&
             c.is("the output", op.out[0], RL_FLOAT, width, true) && check_from_zero(c, op.real[0], "eps") &&
             c.is("the residual", op.in[1], RL_FLOAT, width, true);
      break;
    }
    case RL_NORM:
    case RL_GATHER: {
      const int width = input_width();
      good = width > 0 && c.is("the input", op.in[0], RL_FLOAT, width) && row_output(width) &&
             check_from_zero(c, op.real[0], "eps");
      break;
    }
    case RL_LINEAR: {
      good = c.has_bands(true);
      if (!good) break;
      const int width = logits_width(op);
      if (op.out[0] == kStepLogits && vocab_ == 0) vocab_ = head_width(number);
      good = check_linear(c, width, vocab_, continues(number));
      break;
    }
    case RL_ROPE_KV: {
      const int width = (shape_.heads + 2 * shape_.kv_heads) * shape_.head_dim;
      good = c.is("the input", op.in[0], RL_FLOAT, width, true) && check_layer(c, pools_) &&
             check_attention_buffers(c, op.out[0], op.out[1], shape_) &&
             c.find("the queries", op.out[0])->planes == 1 &&
             check_turns(c, shape_) && check_terms(c, op.out[2], shape_) &&
             (op.out[2] < 0 || check_positive(c, op.real[2], "scale")) && check_turning(number);
      break;
    }
    case RL_ATTENTION:
      good = check_layer(c, pools_) && check_attention_buffers(c, op.in[0], op.in[1], shape_) &&
             c.is("the output", op.out[0], RL_FLOAT, shape_.heads * shape_.head_dim, true) &&
             check_terms(c, op.in[2], shape_) && check_positive(c, op.real[0], "scale") &&
             check_from_zero(c, op.real[1], "softcap") && (op.in[2] < 0 || (check_weight(c, op.weight[0], "rotary frequencies") && check_turning(number)));
      break;
    case RL_GATED_QUANT: {
      const int width = input_width(), activation = op.dim[1];
      good = width > 0 && c.is("the input", op.in[0], RL_FLOAT, width) && c.quantised(width / 2) &&
             check_block(c, width / 2, op.dim[0]);
      if (good && (width % 2 != 0 || (activation != RL_SILU && activation != RL_GELU_TANH)))
        return fail("operation %d makes activation %d of %d channels, expected %d (SiLU) or %d (GELU by tanh) of an even "
                    "number", number, activation, width, RL_SILU, RL_GELU_TANH);
      break;
    }
    case RL_ROTATE: {
      const int width = input_width(), block = op.dim[0], odd = op.dim[1];
      good = width > 0 && c.is("the input", op.in[0], RL_FLOAT, width) && row_output(width) &&
             check_weight(c, op.weight[0], "signs") && check_weight(c, op.weight[1], "mix");
      if (good && (!power_of_two(block) || odd < 1 || width % block != 0 || width / block != odd ||
                   op.in[0] == op.out[0]))
        return fail("operation %d: a rotation of %d blocks of %d cannot rotate %d channels (or works in place)", number,
                    odd, block, width);
      break;
    }
    case RL_LOGITS: good = check_logits(c, vocab_); break;
    default: return fail("operation %d has code %d, which this version does not know", number, op.code);
  }
  if (!good) return -1;
  return 0;
}

// Operations with the same rotary frequencies share a table of angles; a score bias needs one.
bool Program::check_turning(int number) const {
  const rl_op &op = ops_[static_cast<std::size_t>(number)];
  const bool biased = op.weight[kScoreBias] != nullptr;
  if (biased && op.weight[0] == nullptr) {
    fail("operation %d has a score bias, but no channels that turn; leave the bias in the linear", number);
    return false;
  }
  if (biased && op.code == RL_ROPE_KV && op.weight[2] != nullptr) {
    fail("operation %d has a score bias of keys that a norm divides; leave the bias in the linear", number);
    return false;
  }
  if (biased && op.code == RL_ROPE_KV)
    for (int i = 0; i < shape_.kv_heads * shape_.head_dim; ++i)
      if (i % shape_.head_dim >= op.dim[kTurned] && op.weight[kScoreBias][i] != 0.0f) {
        fail("operation %d has a score bias in channel %d of a head, of which %d turn; leave it in the linear", number,
             i % shape_.head_dim, op.dim[kTurned]);
        return false;
      }
  for (int i = 0; i < number && op.weight[0] != nullptr; ++i) {
    const rl_op &before = ops_[static_cast<std::size_t>(i)];
    if (before.code != RL_ROPE_KV || before.weight[0] != op.weight[0]) continue;
    if (op.code == RL_ATTENTION || (before.dim[kTurned] == op.dim[kTurned] && before.real[1] == op.real[1])) return true;
    fail("operations %d and %d share rotary frequencies, but turn %d and %d channels with factors %g and %g", i, number,
         before.dim[kTurned], op.dim[kTurned], static_cast<double>(before.real[1]), static_cast<double>(op.real[1]));
    return false;
  }
  if (op.code == RL_ROPE_KV) return true;
  fail("operation %d has a score bias for rotary frequencies that no operation before it turns by", number);
  return false;
}

}  // namespace rl
