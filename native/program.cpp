#include "program.hpp"

#include <algorithm>
#include <cmath>

#include "error.hpp"

namespace rl {
namespace {

// Splits that a window touches at most, wherever it ends.
int window_splits(int window) { return (window - 2 + kSplit) / kSplit + 1; }

bool uses_cache(const rl_op &op) { return op.code == RL_ROPE_KV || op.code == RL_ATTENTION; }

template <typename T>
bool copy_array(Array<T> &to, const T *from, int count) {
  if (!to.allocate(static_cast<std::size_t>(count))) return false;
  std::copy(from, from + count, to.data());
  return true;
}

}  // namespace

bool Program::copy(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands, const rl_buffer *buffers,
                   int n_buffers, const rl_shape &shape) {
  shape_ = shape;
  shape_.pool = nullptr;
  return copy_array(pools_, shape.pool, shape.pool == nullptr ? 0 : std::clamp(shape.pools, 0, kMaxPools)) &&
         copy_array(ops_, ops, n_ops) && copy_array(bands_, bands, n_bands) &&
         copy_array(buffers_, buffers, n_buffers);
}

Shared<Program> Program::laid_out(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands,
                                  const rl_buffer *buffers, int n_buffers, const rl_shape &shape) {
  Shared<Program> program = Shared<Program>::make();
  if (!program || !program->copy(ops, n_ops, bands, n_bands, buffers, n_buffers, shape)) {
    fail("not enough memory for a program of %d operations; free some", n_ops);
    return {};
  }
  if (program->check_shape(std::any_of(ops, ops + n_ops, uses_cache)) < 0 || program->check_buffers() < 0 ||
      program->check_bands() < 0)
    return {};
  for (int i = 0; i < n_ops; ++i)
    if (program->check_op(i) < 0) return {};
  return program->lay_out() < 0 ? Shared<Program>{} : program;
}

Shared<Program> Program::create(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands,
                                const rl_buffer *buffers, int n_buffers, const rl_shape &shape, int kernel) {
  const Kernels *chosen = rl::kernels(kernel == RL_KERNEL_AUTO ? best_kernel() : kernel);
  if (chosen == nullptr) {
    fail("kernel %d (%s) cannot run on this processor; use the automatic choice", kernel, kernel_name(kernel));
    return {};
  }
  Shared<Program> program = laid_out(ops, n_ops, bands, n_bands, buffers, n_buffers, shape);
  if (!program) return {};
  program->kernels_ = chosen;
  return program->allocate() < 0 ? Shared<Program>{} : program;
}

int Program::logits_width(const rl_op &op) const {
  int width = 0;
  for (int b = op.first_band; b < op.first_band + op.bands; ++b) {
    const rl_band &band = bands_[static_cast<std::size_t>(b)];
    width = std::max(width, band.out_column + band.rows);
  }
  return width;
}

// Numbers that follow from the lists, and how large cache and tables are. Takes no memory for these yet.
int Program::lay_out() {
  const std::size_t n_bands = bands_.size();
  if (!strips_before_.allocate(n_bands + 1) || !turnings_.allocate(ops_.size()) || !pool_offsets_.allocate(pools_.size()))
    return fail("not enough memory for the tables of a program; free some");
  for (std::size_t b = 0; b < n_bands; ++b)
    strips_before_[b + 1] = strips_before_[b] + (bands_[b].rows + kStrip - 1) / kStrip;
  for (const rl_op &op : ops_)
    if (op.code == RL_ROPE_KV && op.weight[0] != nullptr && number_of(op.weight[0]) == turnings_count_)
      turnings_[turnings_count_++] = Turning{op.weight[0], op.dim[kTurned], op.real[1]};
  if (!std::any_of(ops_.begin(), ops_.end(), uses_cache)) return 0;

  head_stride_ = static_cast<int>(round_up(shape_.head_dim, kTile));
  page_bytes_ = kv_page_bytes(shape_.page_tokens, shape_.kv_heads, head_stride_);
  context_splits_ = (shape_.context + kSplit - 1) / kSplit;
  for (std::size_t p = 0; p < pools_.size(); ++p) {
    const rl_pool &pool = pools_[p];
    pool_offsets_[p] = cache_bytes_;
    cache_bytes_ += page_bytes_ * pool.pages * pool.layers;
    const int seen = pool.window == 0 ? context_splits_ : std::min(context_splits_, window_splits(pool.window));
    most_splits_ = std::max(most_splits_, seen);
  }
  const auto biased = [](const rl_op &op) { return uses_cache(op) && op.weight[kScoreBias] != nullptr; };
  if (std::any_of(ops_.begin(), ops_.end(), biased)) {
    split_angles_floats_ = std::int64_t{shape_.head_dim} * (kSplit + context_splits_);
    table_bytes_ = static_cast<std::int64_t>(turnings_count_) * split_angles_floats_ * 4;
  }
  return 0;
}

int Program::allocate() {
  if (!tables_.allocate(static_cast<std::size_t>(table_bytes_)))
    return fail("not enough memory for tables of %lld bytes; use a shorter context", static_cast<long long>(table_bytes_));
  if (!cache_.allocate(static_cast<std::size_t>(cache_bytes_)))
    return fail("not enough memory for a KV pool of %lld bytes; use fewer pages",
                static_cast<long long>(cache_bytes_));
  compute_split_angles();
  return 0;
}

// For the score bias: every position is a split's first and some positions more, and so are the angles.
void Program::compute_split_angles() {
  if (split_angles_floats_ == 0) return;
  float *angles = reinterpret_cast<float *>(tables_.data());
  for (std::size_t f = 0; f < turnings_count_; ++f, angles += split_angles_floats_) {
    const int turned = turnings_[f].turned, half = turned / 2;
    float *starts = angles + std::int64_t{kSplit} * turned;
    for (int i = 0; i < half; ++i) {
      const double frequency = turnings_[f].frequencies[i];
      for (int p = 0; p < kSplit; ++p) {
        angles[2 * kSplit * i + p] = static_cast<float>(std::cos(p * frequency));
        angles[2 * kSplit * i + kSplit + p] = static_cast<float>(std::sin(p * frequency));
      }
      for (int s = 0; s < context_splits_; ++s) {
        const double angle = static_cast<double>(s) * kSplit * frequency;
        starts[std::int64_t{s} * turned + i] = static_cast<float>(std::cos(angle));
        starts[std::int64_t{s} * turned + half + i] = static_cast<float>(std::sin(angle));
      }
    }
  }
}

const float *Program::split_angles(std::size_t turning) const {
  return reinterpret_cast<const float *>(tables_.data()) + static_cast<std::int64_t>(turning) * split_angles_floats_;
}

const float *Program::split_starts(std::size_t turning) const {
  return split_angles(turning) + std::int64_t{kSplit} * turnings_[turning].turned;
}

std::size_t Program::number_of(const float *frequencies) const {
  std::size_t number = 0;
  while (number < turnings_count_ && turnings_[number].frequencies != frequencies) ++number;
  return number;
}

KvLayer Program::layer(int pool, int number) const {
  const auto p = static_cast<std::size_t>(pool);
  return KvLayer{cache_.data() + pool_offsets_[p] + number * page_bytes_ * pools_[p].pages,
                 page_bytes_,
                 shape_.page_tokens,
                 shape_.kv_heads,
                 shape_.head_dim,
                 head_stride_};
}

int Program::check_page(int pool, int page) const {
  if (page_bytes_ == 0) return fail("this program has no KV cache");
  if (pool < 0 || static_cast<std::size_t>(pool) >= pools_.size())
    return fail("there is no KV pool %d; the program has %zu", pool, pools_.size());
  const int pages = pools_[static_cast<std::size_t>(pool)].pages;
  return page >= 0 && page < pages ? 0 : fail("there is no page %d in KV pool %d; its pages are 0 to %d", page, pool, pages - 1);
}

int Program::copy_page(int pool, int from, int to) {
  if (check_page(pool, from) < 0 || check_page(pool, to) < 0) return -1;
  for (int i = 0; i < pools_[static_cast<std::size_t>(pool)].layers; ++i) {
    const KvLayer kv = layer(pool, i);
    std::copy_n(kv.base + from * page_bytes_, from == to ? 0 : page_bytes_, kv.base + to * page_bytes_);
  }
  return 0;
}

std::int64_t Program::page_bytes(int pool) const {
  return check_page(pool, 0) < 0 ? -1 : page_bytes_ * pools_[static_cast<std::size_t>(pool)].layers;
}

int Program::read_page(int pool, int page, std::uint8_t *out) const {
  if (check_page(pool, page) < 0) return -1;
  for (int i = 0; i < pools_[static_cast<std::size_t>(pool)].layers; ++i)
    std::copy_n(layer(pool, i).base + page * page_bytes_, page_bytes_, out + i * page_bytes_);
  return 0;
}

int Program::write_page(int pool, int page, const std::uint8_t *data) {
  if (check_page(pool, page) < 0) return -1;
  for (int i = 0; i < pools_[static_cast<std::size_t>(pool)].layers; ++i)
    std::copy_n(data + i * page_bytes_, page_bytes_, layer(pool, i).base + page * page_bytes_);
  return 0;
}

}  // namespace rl
