#include "program.hpp"

#include <algorithm>

#include "draw.hpp"
#include "error.hpp"

namespace rl {
namespace {

constexpr int kMaxThreads = 64;

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

Owned<Program> Program::laid_out(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands,
                                 const rl_buffer *buffers, int n_buffers, const rl_shape &shape, int threads) {
  if (threads < 1 || threads > kMaxThreads) {
    fail("a program cannot have %d threads; use 1 to %d", threads, kMaxThreads);
    return nullptr;
  }
  Owned<Program> program = make_owned<Program>();
  if (program == nullptr || !program->copy(ops, n_ops, bands, n_bands, buffers, n_buffers, shape)) {
    fail("not enough memory for a program of %d operations; free some", n_ops);
    return nullptr;
  }
  if (program->check_shape(std::any_of(ops, ops + n_ops, uses_cache)) < 0 || program->check_buffers() < 0 ||
      program->check_bands() < 0)
    return nullptr;
  for (int i = 0; i < n_ops; ++i)
    if (program->check_op(i) < 0) return nullptr;
  return program->lay_out(threads) < 0 ? nullptr : std::move(program);
}

Owned<Program> Program::create(const rl_op *ops, int n_ops, const rl_band *bands, int n_bands,
                               const rl_buffer *buffers, int n_buffers, const rl_shape &shape, int threads,
                               int kernel) {
  const Kernels *chosen = kernels(kernel == RL_KERNEL_AUTO ? best_kernel() : kernel);
  if (chosen == nullptr) {
    fail("kernel %d (%s) cannot run on this processor; use the automatic choice", kernel, kernel_name(kernel));
    return nullptr;
  }
  Owned<Program> program = laid_out(ops, n_ops, bands, n_bands, buffers, n_buffers, shape, threads);
  if (program == nullptr) return nullptr;
  program->kernels_ = chosen;
  if (program->allocate() < 0) return nullptr;
  if (!program->threads_.start(threads)) {
    fail("the system refused to start %d threads; use fewer", threads);
    return nullptr;
  }
  return program;
}

std::int64_t Program::row_bytes(const rl_buffer &buffer) const {
  return buffer.kind == RL_INT8 ? round_up(buffer.width, kTile) * buffer.planes : std::int64_t{4} * buffer.width;
}

int Program::logits_width(const rl_op &op) const {
  int width = 0;
  for (int b = op.first_band; b < op.first_band + op.bands; ++b) {
    const rl_band &band = bands_[static_cast<std::size_t>(b)];
    width = std::max(width, band.out_column + band.rows);
  }
  return width;
}

// Where everything lies in the arena: buffers by slot, then rotary angles, attention parts, logits, and each thread's scratch.
// Takes no memory for it yet.
int Program::lay_out(int threads) {
  const std::size_t n_buffers = buffers_.size(), n_bands = bands_.size();
  Array<std::int64_t> slot_bytes;
  if (!slot_bytes.allocate(n_buffers) || !offsets_.allocate(n_buffers) || !strides_.allocate(n_buffers) ||
      !strips_before_.allocate(n_bands + 1) || !turnings_.allocate(ops_.size()) ||
      !reach_.allocate(static_cast<std::size_t>(shape_.max_rows)) || !pool_offsets_.allocate(pools_.size()) ||
      !scratch_.allocate(static_cast<std::size_t>(threads)))
    return fail("not enough memory for the tables of a program; free some");

  for (std::size_t b = 0; b < n_buffers; ++b) {
    strides_[b] = row_bytes(buffers_[b]);
    auto &bytes = slot_bytes[static_cast<std::size_t>(buffers_[b].slot)];
    bytes = std::max(bytes, round_up(strides_[b] * shape_.max_rows, 64));
  }
  std::int64_t used = 0;
  for (auto &bytes : slot_bytes) {
    const std::int64_t start = used;
    used += bytes;
    bytes = start;
  }
  for (std::size_t b = 0; b < n_buffers; ++b) offsets_[b] = slot_bytes[static_cast<std::size_t>(buffers_[b].slot)];

  std::int64_t row_floats = 1, weight_bytes = 0;
  for (const rl_buffer &buffer : buffers_) row_floats = std::max<std::int64_t>(row_floats, buffer.width);
  for (std::size_t b = 0; b < n_bands; ++b) {
    const rl_band &band = bands_[b];
    strips_before_[b + 1] = strips_before_[b] + (band.rows + kStrip - 1) / kStrip;
    weight_bytes = std::max(weight_bytes, block_bytes(band.cols));
  }

  const auto biased = [](const rl_op &op) { return uses_cache(op) && op.weight[kScoreBias] != nullptr; };
  for (const rl_op &op : ops_)
    if (op.code == RL_ROPE_KV && op.weight[0] != nullptr && number_of(op.weight[0]) == turnings_count_)
      turnings_[turnings_count_++] = Turning{op.weight[0], op.dim[kTurned], op.real[1]};
  angles_offset_ = used;
  used += round_up(static_cast<std::int64_t>(turnings_count_) * shape_.max_rows * shape_.head_dim * 4, 64);

  std::int64_t attention = 0, partial = 0;
  parts_offset_ = used;
  if (std::any_of(ops_.begin(), ops_.end(), uses_cache)) {
    head_stride_ = static_cast<int>(round_up(shape_.head_dim, kTile));
    page_bytes_ = kv_page_bytes(shape_.page_tokens, shape_.kv_heads, head_stride_);
    max_splits_ = (shape_.context + kSplit - 1) / kSplit;
    int splits = 1;
    for (std::size_t p = 0; p < pools_.size(); ++p) {
      const rl_pool &pool = pools_[p];
      pool_offsets_[p] = cache_bytes_;
      cache_bytes_ += page_bytes_ * pool.pages * pool.layers;
      splits = std::max(splits, pool.window == 0 ? max_splits_ : std::min(max_splits_, window_splits(pool.window)));
    }
    attention = kAttentionFloats;
    partial = partial_floats(shape_.heads / shape_.kv_heads, head_stride_);
    used += round_up(std::int64_t{kPartsPerThread} * threads * splits * partial * 4, 64);
  }
  split_angles_offset_ = used;
  if (std::any_of(ops_.begin(), ops_.end(), biased)) {
    split_angles_floats_ = std::int64_t{shape_.head_dim} * (kSplit + max_splits_);
    used += round_up(static_cast<std::int64_t>(turnings_count_) * split_angles_floats_ * 4, 64);
  }

  logits_offset_ = used;
  used += round_up(std::int64_t{4} * shape_.logit_rows * vocab_, 64);

  ScratchPlan &s = scratch_plan_;
  s.weights = kTableBytes;
  s.excess = s.weights + round_up(weight_bytes, 64);
  s.row = s.excess + round_up(std::int64_t{4} * 2 * shape_.max_rows, 64);
  s.attention = s.row + round_up(4 * row_floats, 64) + 64;
  s.partial = s.attention + round_up(4 * attention, 64);
  s.drawing = s.partial + round_up(8 * partial, 64);
  s.bytes = round_up(s.drawing + (shape_.logit_rows > 0 ? drawing_bytes(vocab_) : 0), 4096);
  s.first = round_up(used, 4096);
  arena_bytes_ = s.first + threads * s.bytes;
  return 0;
}

int Program::allocate() {
  if (!arena_.allocate(static_cast<std::size_t>(arena_bytes_)))
    return fail("not enough memory for an arena of %lld bytes; use fewer rows a step",
                static_cast<long long>(arena_bytes_));
  kv_pool_ = Shared<Pages>::make();
  if (!kv_pool_ || (cache_bytes_ != 0 && !kv_pool_->allocate(static_cast<std::size_t>(cache_bytes_))))
    return fail("not enough memory for a KV pool of %lld bytes; use fewer pages",
                static_cast<long long>(cache_bytes_));
  kv_base_ = kv_pool_->data();
  compute_split_angles();
  std::uint8_t *base = arena_.data() + scratch_plan_.first;
  for (Scratch &scratch : scratch_) {
    scratch = Scratch{nullptr,
                      reinterpret_cast<std::int8_t *>(base),
                      base + scratch_plan_.weights,
                      reinterpret_cast<std::int32_t *>(base + scratch_plan_.excess),
                      reinterpret_cast<float *>(base + scratch_plan_.row),
                      reinterpret_cast<float *>(base + scratch_plan_.attention),
                      reinterpret_cast<float *>(base + scratch_plan_.partial),
                      base + scratch_plan_.drawing};
    base += scratch_plan_.bytes;
  }
  return 0;
}

void *Program::buffer(int number) {
  if (number < 0 || static_cast<std::size_t>(number) >= buffers_.size()) {
    fail("there is no buffer %d; the program has %zu", number, buffers_.size());
    return nullptr;
  }
  return at<void>(number, 0);
}

int Program::share_cache(const Program &other) {
  const rl_shape &a = shape_, &b = other.shape_;
  if (page_bytes_ == 0 || other.page_bytes_ == 0) return fail("a program without a KV cache cannot share one");
  const auto same = [](const rl_pool &x, const rl_pool &y) {
    return x.layers == y.layers && x.pages == y.pages && x.window == y.window;
  };
  if (page_bytes_ != other.page_bytes_ || a.page_tokens != b.page_tokens || a.kv_heads != b.kv_heads ||
      a.head_dim != b.head_dim || !std::equal(pools_.begin(), pools_.end(), other.pools_.begin(), other.pools_.end(), same))
    return fail("a cache of %zu pools, the first of %d pages of %d tokens, cannot take the place of one of %zu, the first "
                "of %d pages of %d; all sizes must agree",
                other.pools_.size(), other.pools_[0].pages, b.page_tokens, pools_.size(), pools_[0].pages,
                a.page_tokens);
  if (busy_.exchange(true)) return fail("this program is running a step; wait for it before it shares a cache");
  kv_pool_ = other.kv_pool_;
  kv_base_ = other.kv_base_;
  owns_cache_ = false;
  busy_.store(false);
  return 0;
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
