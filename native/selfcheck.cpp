// Compares every kernel this processor can run with the portable one, bit for bit, on random data, and counts what the
// threads do: for machines without Python, for emulators and for sanitizers. Exits 0 when all is well.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "kernels.hpp"
#include "memory.hpp"
#include "pool.hpp"
#include "rockledge.h"

namespace {

using rl::kStrip;
using rl::kTile;
using rl::round_up;

struct Random {
  std::uint64_t state = 1;
  std::uint32_t next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state >> 33);
  }
  std::int32_t any() { return static_cast<std::int32_t>(next() << 16 ^ next()); }
  int below(int n) { return static_cast<int>(next() % static_cast<std::uint32_t>(n)); }
  float real() { return static_cast<float>(next() % 20001) / 5000.0f - 2.0f; }
};

template <typename T>
rl::Array<T> array(std::int64_t count) {
  rl::Array<T> a;
  if (!a.allocate(static_cast<std::size_t>(count))) std::abort();
  return a;
}

rl::Array<float> reals(Random &random, std::int64_t count) {
  rl::Array<float> a = array<float>(count);
  for (float &x : a) x = random.real();
  return a;
}

rl::Array<std::int8_t> bytes(Random &random, std::int64_t count) {
  rl::Array<std::int8_t> a = array<std::int8_t>(count);
  for (std::int8_t &x : a) x = static_cast<std::int8_t>(random.below(255) - 127);
  return a;
}

constexpr int kMostCols = 1600, kMostVectors = 128;

// Scratch for anything this file does, with vectors' alignment.
class Memory {
 public:
  explicit Memory(int head_stride) {
    const std::int64_t floats =
        16384 + kMostVectors + rl::kAttentionFloats + 2 * rl::kTileRows * rl::partial_floats(8, head_stride);
    const std::int64_t weights = round_up(rl::block_bytes(kMostCols), 64);
    if (!pages_.allocate(static_cast<std::size_t>(rl::kTableBytes + weights + 4 * floats))) std::abort();
    std::uint8_t *p = pages_.data();
    scratch_.tables = reinterpret_cast<std::int8_t *>(p);
    scratch_.weights = p + rl::kTableBytes;
    scratch_.excess = reinterpret_cast<std::int32_t *>(p + rl::kTableBytes + weights);
    scratch_.row = reinterpret_cast<float *>(scratch_.excess + kMostVectors);
    scratch_.attention = scratch_.row + 16384;
    scratch_.partial = scratch_.attention + rl::kAttentionFloats;
  }
  rl::Scratch &scratch() { return scratch_; }

 private:
  rl::Pages pages_;
  rl::Scratch scratch_{};
};

int failures = 0;

template <typename T>
void same(const char *what, const rl::Array<T> &a, const rl::Array<T> &b) {
  if (std::memcmp(a.data(), b.data(), sizeof(T) * a.size()) == 0) return;
  ++failures;
  std::printf("  %s differs\n", what);
}

// A band of any width over weights of its own: up to so many rows and columns, sometimes with a bias.
struct RandomBand {
  RandomBand(Random &random, int most_rows, int most_cols) {
    const int widths[] = {2, 3, 4, 8};
    band.bits = widths[random.below(4)];
    band.rows = 1 + random.below(most_rows);
    band.cols = 1 + random.below(most_cols);
    strips = (band.rows + kStrip - 1) / kStrip;
    tiles = rl::tiles_of(band.cols);
    codes = bytes(random, std::int64_t{strips} * tiles * kTile * band.bits);
    index = bytes(random, std::int64_t{strips} * tiles * kStrip);
    tables = bytes(random, 256);
    scale = reals(random, band.rows);
    bias = reals(random, band.rows);
    band.codes = reinterpret_cast<const std::uint8_t *>(codes.data());
    band.index = reinterpret_cast<const std::uint8_t *>(index.data());
    band.tables = tables.data();
    band.scale = scale.data();
    band.bias = random.below(2) == 0 ? bias.data() : nullptr;
  }

  rl_band band{};
  int strips, tiles;
  rl::Array<std::int8_t> codes, index, tables;
  rl::Array<float> scale, bias;
};

void check_linear(const rl::Kernels &one, const rl::Kernels &two, Random &random) {
  const RandomBand drawn(random, 70, kMostCols);
  const rl_band &band = drawn.band;
  const int strips = drawn.strips, cols = drawn.tiles * kTile;

  rl::LinearTask task{};
  task.band = &band;
  task.rows = 1 + random.below(random.below(2) == 0 ? 3 : 40);
  task.planes = 1 + random.below(2);
  task.x_stride = cols;
  const auto x = bytes(random, std::int64_t{task.rows} * task.planes * cols);
  const auto sx = reals(random, task.rows), residual = reals(random, std::int64_t{task.rows} * band.rows);
  task.x = x.data();
  task.sx = sx.data();
  task.residual = random.below(2) == 0 ? residual.data() : nullptr;
  task.y_stride = task.residual_stride = band.rows;
  auto y1 = array<float>(std::int64_t{task.rows} * band.rows), y2 = array<float>(std::int64_t{task.rows} * band.rows);
  Memory memory(32);
  task.y = y1.data();
  one.linear(task, 0, strips, memory.scratch());
  memory.scratch().tables_of = nullptr;
  task.y = y2.data();
  const int middle = random.below(strips + 1);
  two.linear(task, 0, middle, memory.scratch());
  two.linear(task, middle, strips, memory.scratch());
  same("linear", y1, y2);

  auto e1 = array<float>(band.cols), e2 = array<float>(band.cols);
  const int row = random.below(band.rows);
  one.embed(band, row, e1.data(), memory.scratch());
  two.embed(band, row, e2.data(), memory.scratch());
  same("embedding", e1, e2);
}

void check_rows(const rl::Kernels &one, const rl::Kernels &two, Random &random) {
  const int block = 1 << random.below(10), odd = 1 + random.below(9), width = block * odd;
  const int stride = static_cast<int>(round_up(width, kTile)), planes = 1 + random.below(2);
  const auto x = reals(random, 2 * width), gain = reals(random, width), mix = reals(random, odd * odd);
  const float *gain_or_none = random.below(2) == 0 ? gain.data() : nullptr;
  const int quant_block = random.below(2) * block, activation = random.below(2);
  const float cap = static_cast<float>(random.below(3));
  Memory memory(32);
  const rl::Kernels *both[] = {&one, &two};
  rl::Array<std::int8_t> q[2];
  rl::Array<float> y[2], scales[2];
  for (int i = 0; i < 2; ++i) {
    const rl::Kernels &k = *both[i];
    q[i] = array<std::int8_t>(std::int64_t{4} * planes * stride);
    scales[i] = array<float>(4);
    y[i] = array<float>(6 * width);
    const auto out = [&](int n) {
      return rl::QuantOut{q[i].data() + n * planes * stride, scales[i].data() + n, stride, planes, 0};
    };
    k.quant(x.data(), width, quant_block, out(0), memory.scratch());
    k.norm_quant(x.data(), width, gain_or_none, 1e-5f, quant_block, out(1), memory.scratch());
    k.gated_quant(x.data(), x.data() + width, width, activation, block, out(2), memory.scratch());
    k.norm(x.data(), width, gain_or_none, 1e-5f, y[i].data());
    k.norm_add(x.data(), x.data() + width, width, gain_or_none, 1e-5f, y[i].data() + 3 * width);
    k.soft_cap(x.data(), 2 * width, 3.0f, cap, y[i].data() + 4 * width);
    scales[i][3] = k.inverse_root(x.data(), width, 1e-5f);
    k.rotate(x.data(), block, odd, false, gain.data(), mix.data(), gain_or_none, y[i].data() + width, memory.scratch());
    k.rotate(x.data(), block, odd, true, gain.data(), mix.data(), nullptr, y[i].data() + 2 * width, memory.scratch());
  }
  same("quantised row", q[0], q[1]);
  same("scale", scales[0], scales[1]);
  same("norm, rotation or capped row", y[0], y[1]);
}

// Rows in the code of random tables, and one Hadamard transform.
void check_round(const rl::Kernels &one, const rl::Kernels &two, Random &random) {
  const int width = 1 + random.below(200), groups = (width + rl::kGroup - 1) / rl::kGroup, block = 1 << random.below(10);
  const auto weights = reals(random, width), errors = reals(random, rl::kErrorCells * rl::kTables), x = reals(random, block);
  auto nearest = array<std::uint8_t>(rl::kTables * rl::kNearestCells);
  auto entries = array<std::int8_t>(rl::kTables * rl::kTables);
  for (auto &code : nearest) code = static_cast<std::uint8_t>(random.below(16));
  for (auto &entry : entries) entry = static_cast<std::int8_t>(random.below(255) - 127);
  const float shares[] = {1.0f, 0.97f, 1.03f};
  const rl::RoundTables tables{errors.data(), nearest.data(), entries.data(), shares, 3};
  const rl::Kernels *both[] = {&one, &two};
  rl::Array<std::uint8_t> codes[2];
  rl::Array<float> floats[2];
  for (int i = 0; i < 2; ++i) {
    codes[i] = array<std::uint8_t>(width + groups);
    floats[i] = array<float>(1 + block);
    auto tried = array<std::uint8_t>(2 * groups);
    floats[i][0] = both[i]->round_row(weights.data(), width, tables, tried.data(), codes[i].data(), codes[i].data() + width);
    std::memcpy(floats[i].data() + 1, x.data(), sizeof(float) * static_cast<std::size_t>(block));
    both[i]->hadamard(floats[i].data() + 1, block);
  }
  same("rounded row", codes[0], codes[1]);
  same("row scale or transform", floats[0], floats[1]);
}

// Weights and codes in the NPU's layout, and floats of its sums.
void check_lane(const rl::Kernels &one, const rl::Kernels &two, Random &random) {
  const RandomBand drawn(random, 31, 400);
  const rl_band &band = drawn.band;
  const int strips = drawn.strips, tiles = drawn.tiles, cols = tiles * kTile;

  const int planes = 1 + random.below(2), first = 4 * (1 + random.below(3)), all = first + 4 * (1 + random.below(3));
  const int rows = 1 + random.below(all / planes), parts = 1 + random.below(3);
  const std::int32_t starts[] = {0, first, all};
  auto factors = array<std::int32_t>(kStrip * strips);
  for (std::int32_t &by : factors) by = random.any();
  rl::LaneSums lane{nullptr, std::int64_t{64} * all, starts, 2, parts, 64, nullptr, nullptr};
  auto sums = array<std::int32_t>(parts * lane.part_stride);
  for (std::int32_t &sum : sums) sum = random.any();
  lane.sums = sums.data();
  const auto sx = reals(random, rows), residual = reals(random, std::int64_t{rows} * band.rows);
  rl::LinearTask task{};
  task.band = &band;
  task.rows = rows;
  task.planes = planes;
  task.sx = sx.data();
  task.residual = random.below(2) == 0 ? residual.data() : nullptr;
  task.y_stride = task.residual_stride = band.rows;

  const int from = random.below(tiles), count = 1 + random.below(tiles - from), column = kStrip * random.below(5);
  const int strip = random.below(strips), last = strip + 1 + random.below(strips - strip), atoms = cols / rl::kAtom;
  const auto x = reals(random, band.cols);
  const int quant_block = band.cols % 2 == 0 ? 2 * random.below(2) : 0;
  constexpr std::int64_t kApart = 1024, kAtomApart = 96;
  constexpr std::int64_t kCodesApart = rl::kCheckVectors * rl::kAtom + 16;
  const auto codes = bytes(random, atoms * kCodesApart);
  auto low = array<std::int32_t>(cols), high = array<std::int32_t>(cols);
  for (std::int32_t &weight : low) weight = random.any();
  for (std::int32_t &weight : high) weight = random.any();
  const rl::Kernels *both[] = {&one, &two};
  rl::Array<float> y[2], sq[2];
  rl::Array<std::uint64_t> checks[2], expected[2];
  rl::Array<std::int8_t> q[2];
  rl::Pages weights[2];
  Memory memory(32);
  for (int i = 0; i < 2; ++i) {
    const auto size = static_cast<std::size_t>(count * kApart);
    if (!weights[i].allocate(size)) std::abort();
    memory.scratch().tables_of = nullptr;
    both[i]->unpack(band, strip, from, count, kApart, reinterpret_cast<std::int8_t *>(weights[i].data()),
                    memory.scratch());
    y[i] = array<float>(std::int64_t{rows} * band.rows);
    task.y = y[i].data();
    auto in_lanes = array<std::uint64_t>(std::int64_t{rl::kCheckLanes} * all);
    lane.factors = factors.data();
    lane.checks = in_lanes.data();
    both[i]->finish_lane(task, lane, column, strip, last);
    checks[i] = array<std::uint64_t>(all);
    for (std::size_t n = 0; n < in_lanes.size(); ++n) checks[i][n / rl::kCheckLanes] += in_lanes[n];
    expected[i] = array<std::uint64_t>(rl::kCheckVectors);
    both[i]->expect_checks(rl::ExpectTask{codes.data(), kCodesApart, cols, low.data(), high.data()}, expected[i].data());
    q[i] = array<std::int8_t>(atoms * kAtomApart);
    sq[i] = array<float>(1);
    both[i]->quant(x.data(), band.cols, quant_block, rl::QuantOut{q[i].data(), sq[i].data(), cols, planes, kAtomApart},
                   memory.scratch());
  }
  int wrong = std::memcmp(weights[0].data(), weights[1].data(), weights[0].size()) != 0;
  same("floats of the NPU's sums", y[0], y[1]);
  same("checks of the NPU's sums", checks[0], checks[1]);
  same("expected checks", expected[0], expected[1]);
  same("codes for the NPU", q[0], q[1]);
  // As their formulas say.
  auto formula = array<std::uint64_t>(rl::kCheckVectors);
  for (int k = 0; k < cols; ++k)
    for (int i = 0; i < rl::kCheckVectors; ++i) {
      const auto n = static_cast<std::size_t>(k);
      const std::int64_t code = codes.data()[k / rl::kAtom * kCodesApart + i * rl::kAtom + k % rl::kAtom];
      formula[static_cast<std::size_t>(i)] +=
          static_cast<std::uint64_t>(code * low[n]) + (static_cast<std::uint64_t>(code * high[n]) << 32);
    }
  same("expected checks by their formula", expected[0], formula);
  auto by_formula = array<std::uint64_t>(all);
  for (int v = 0; v < rows * planes; ++v) {
    const int tile = v < first ? 0 : 1, vectors = starts[tile + 1] - starts[tile];
    for (int c = 0; c < kStrip * (last - strip); ++c) {
      const std::int64_t at = std::int64_t{starts[tile]} * lane.columns + std::int64_t{(column + c) / 4} * 4 * vectors +
                              4 * (v - starts[tile]) + (column + c) % 4;
      std::uint32_t sum = 0;
      for (int p = 0; p < parts; ++p) sum += static_cast<std::uint32_t>(sums.data()[p * lane.part_stride + at]);
      by_formula[static_cast<std::size_t>(v)] += static_cast<std::uint64_t>(
          std::int64_t{static_cast<std::int32_t>(sum)} * factors[static_cast<std::size_t>(c)]);
    }
  }
  same("checks by their formula", checks[0], by_formula);
  // The same numbers as in rows.
  auto rowwise = array<std::int8_t>(std::int64_t{planes} * cols);
  auto scales = array<float>(1);
  one.quant(x.data(), band.cols, quant_block, rl::QuantOut{rowwise.data(), scales.data(), cols, planes, 0},
            memory.scratch());
  for (int k = 0; k < planes * cols; ++k) {
    const int plane = k / cols, input = k % cols;
    wrong += q[0][static_cast<std::size_t>(input / rl::kAtom * kAtomApart + plane * rl::kAtom + input % rl::kAtom)] !=
             rowwise[static_cast<std::size_t>(k)];
  }
  for (int t = 0; t < count; ++t)
    for (int r = 0; r < kStrip && strip * kStrip + r < band.rows; ++r) {
      auto row = array<float>(band.cols);
      one.embed(band, strip * kStrip + r, row.data(), memory.scratch());
      const auto *w = reinterpret_cast<const std::int8_t *>(weights[0].data()) + t * kApart + r * kTile;
      for (int k = 0; k < kTile && (from + t) * kTile + k < band.cols; ++k)
        wrong += row[static_cast<std::size_t>((from + t) * kTile + k)] !=
                 band.scale[strip * kStrip + r] * static_cast<float>(w[k]);
    }
  if (wrong == 0) return;
  ++failures;
  std::printf("  %d weights or codes for the NPU differ\n", wrong);
}

void check_attention(const rl::Kernels &one, const rl::Kernels &two, Random &random) {
  const int head_dim = 2 * (1 + random.below(64)), stride = static_cast<int>(round_up(head_dim, kTile));
  const int kv_heads = 1 + random.below(3), group = 1 + random.below(8), heads = kv_heads * group;
  const int page_tokens = 8 << random.below(7), position = random.below(700);
  const int pages = position / page_tokens + 1, splits = position / rl::kSplit + 1;
  const int seen = random.below(2) == 0 ? 0 : random.below(position + 1);
  const std::int64_t page_bytes = rl::kv_page_bytes(page_tokens, kv_heads, stride);
  auto pool = bytes(random, page_bytes * pages);
  auto table = array<std::int32_t>(pages);
  for (int p = 0; p < pages; ++p) {
    // No entry of a page before the window may be used.
    table[static_cast<std::size_t>(p)] = p < seen / page_tokens ? 1 << 30 : p;
    const std::int64_t scales = 2 * std::int64_t{kv_heads} * page_tokens;
    auto values = reals(random, scales);
    for (float &scale : values) scale = std::abs(scale);
    std::memcpy(pool.data() + (p + 1) * page_bytes - 4 * scales, values.data(), static_cast<std::size_t>(4 * scales));
  }
  const int window = seen > 0 ? position + 1 - seen : 0;
  const int rows = std::min({1 + random.below(rl::kTileRows), position % page_tokens + 1,
                             window > 0 ? seen % page_tokens + 1 : rl::kTileRows});
  const std::int64_t width = std::int64_t{heads} * head_dim;
  const auto row = reals(random, rows * width), angle = reals(random, head_dim);
  // Of the score bias kernels want to know where it is zero; its terms may be any numbers.
  const bool biased = random.below(2) == 1;
  const auto terms = reals(random, rows * width);
  const auto angles = reals(random, std::int64_t{rl::kSplit} * head_dim),
             starts = reals(random, std::int64_t{splits} * head_dim);
  auto bias = reals(random, std::int64_t{kv_heads} * head_dim);
  for (float &b : bias)
    if (random.below(2) == 1) b = 0.0f;
  const float cap = static_cast<float>(2 * random.below(3));
  const int turned = 2 * (1 + random.below(head_dim / 2));
  const auto gain = reals(random, head_dim);
  const float inverse = random.real();
  const rl::HeadTurn turn{random.below(2) == 1 ? gain.data() : nullptr, 1e-5f,
                          random.below(2) == 1 ? &inverse : nullptr, random.below(4) == 0 ? nullptr : angle.data(),
                          turned};
  Memory memory(stride);
  // The last one has its rows one by one.
  const rl::Kernels *all[] = {&one, &two, &two};
  rl::Array<std::int8_t> q[3];
  rl::Array<float> sq[3], y[3];
  for (int i = 0; i < 3; ++i) {
    const rl::Kernels &k = *all[i];
    q[i] = array<std::int8_t>(std::int64_t{rows} * heads * stride);
    sq[i] = array<float>(std::int64_t{rows} * heads);
    y[i] = array<float>(rows * width);
    for (int h = 0; h < rows * heads; ++h)
      k.head_quant(row.data() + h * head_dim, head_dim, stride, turn, q[i].data() + h * stride,
                   &sq[i][static_cast<std::size_t>(h)], memory.scratch());
    const rl::KvLayer kv{reinterpret_cast<std::uint8_t *>(pool.data()), page_bytes, page_tokens, kv_heads, head_dim,
                         stride};
    rl::AttentionTask tasks[rl::kTileRows];
    for (int r = 0; r < rows; ++r) {
      const int before = rows - 1 - r;
      tasks[r] = rl::AttentionTask{kv, q[i].data() + r * heads * stride, sq[i].data() + r * heads, table.data(),
                                   window > 0 ? seen - before : 0, position - before, heads, head_dim, 1.0f / 8, cap,
                                   biased ? terms.data() + r * width : nullptr, bias.data(), angles.data(), starts.data(),
                                   turned};
    }
    const std::int64_t floats = rl::partial_floats(group, stride);
    float *state = memory.scratch().partial, *next = state + rl::kTileRows * floats;
    const int together = i == 2 ? 1 : rows;
    for (int first = 0; first < rows; first += together)
      for (int h = 0; h < kv_heads; ++h) {
        const rl::AttentionTask *tile = tasks + first;
        const int split = tile->first / rl::kSplit;
        k.attend_split(tile, together, h, split, state, floats, memory.scratch());
        for (int s = split + 1; s <= tile->position / rl::kSplit; ++s) {
          k.attend_split(tile, together, h, s, next, floats, memory.scratch());
          for (int r = 0; r < together; ++r) k.attend_fold(tile[r], state + r * floats, next + r * floats);
        }
        for (int r = 0; r < together; ++r)
          k.attend_finish(tile[r], state + r * floats, y[i].data() + (first + r) * width + h * group * head_dim);
      }
  }
  same("head", q[0], q[1]);
  same("head scale", sq[0], sq[1]);
  same("attention", y[0], y[1]);
  same("attention row by row", y[1], y[2]);
}

// Phases of random sizes; every unit must be done exactly once, and none before the phase before it is complete.
class Counting final : public rl::Job {
 public:
  explicit Counting(int phases) : phases_(phases), seen_(array<std::int32_t>(kMostUnits)) {}

  rl::Phase next(int) override {
    for (std::uint32_t u = 0; u < units_; ++u) wrong_ += seen_[u] != phase_;
    if (++phase_ > phases_) return rl::Phase{0, 1};
    units_ = 1 + static_cast<std::uint32_t>(random_.below(kMostUnits));
    return rl::Phase{units_, 1 + static_cast<std::uint32_t>(random_.below(3))};
  }
  void work(std::uint32_t first, std::uint32_t count, int) override {
    for (std::uint32_t u = first; u < first + count; ++u) seen_[u] = seen_[u] < phase_ ? phase_ : -1;
  }
  int wrong() const { return wrong_ + (phase_ != phases_ + 1); }

 private:
  static constexpr int kMostUnits = 40;
  int phases_, phase_ = 0, wrong_ = 0;
  std::uint32_t units_ = 0;
  rl::Array<std::int32_t> seen_;
  Random random_;
};

void check_pool() {
  for (int threads = 1; threads <= 4; ++threads) {
    rl::Pool pool;
    if (!pool.start(threads)) std::abort();
    for (int job = 0; job < 20; ++job) {
      Counting counting(10 * job);
      pool.run(counting);
      if (counting.wrong() == 0) continue;
      ++failures;
      std::printf("  %d threads left or repeated units\n", threads);
    }
  }
}

}  // namespace

int main() {
  const rl::Kernels &portable = *rl::kernels(RL_KERNEL_PORTABLE);
  int compared = 0;
  for (int id = RL_KERNEL_PORTABLE; id <= RL_KERNEL_VNNI512; ++id) {
    const rl::Kernels *other = rl::kernels(id);
    if (other == nullptr) continue;
    Random random;
    const int before = failures;
    for (int round = 0; round < 150; ++round) {
      check_linear(portable, *other, random);
      check_rows(portable, *other, random);
      check_lane(portable, *other, random);
      check_round(portable, *other, random);
      if (round % 3 == 0) check_attention(portable, *other, random);
    }
    std::printf("%s: %s\n", rl::kernel_name(id), failures == before ? "equal to portable" : "DIFFERENT from portable");
    ++compared;
  }
  check_pool();
  std::printf("threads: %s\n", failures == 0 ? "every unit done once" : "see above");
  return failures == 0 && compared > 0 ? 0 : 1;
}
