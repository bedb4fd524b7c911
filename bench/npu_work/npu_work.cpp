// What the CPU does beside the NPU, each kind of work alone over memory of its own: unpacking, quantising into the
// NPU's layout, floats from its sums; and what the memory gives when it is only written or copied.
//
//   npu_work times THREADS TURNS MEBIBYTES  least nanoseconds of every kind over turns in which each runs once
//   npu_work count MEBIBYTES                each kind once, one thread, in a phase of its own for bench/a76/count.c
//
// Prints a line for each kind: NAME ELEMENTS NANOSECONDS, where NANOSECONDS of a count is the number of its phase.
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "clock.hpp"
#include "kernels.hpp"
#include "memory.hpp"
#include "npu/lane_sums.hpp"
#include "pool.hpp"

namespace {

constexpr int kMark = 0x726b;  // a "which" that getpriority does not know; count.c knows it
constexpr int kCols = 4096, kRows = 512, kTogether = 4;
constexpr std::int64_t kTileBytes = rl::kStrip * rl::kTile;
constexpr int kMostThreads = 64;

struct Kind {
  const char *name;
  int bits;       // of codes
  int planes;     // of activations
  int parts;      // planes of sums
  bool residual;
};
constexpr Kind kKinds[] = {
    {"write", 0, 0, 0, false},         {"copy", 0, 0, 0, false},
    {"unpack 2", 2, 0, 0, false},      {"unpack 3", 3, 0, 0, false},
    {"unpack 4", 4, 0, 0, false},      {"unpack 8", 8, 0, 0, false},
    {"quantise in order", 0, 1, 0, false}, {"quantise", 0, 1, 0, false},
    {"quantise, 2 planes", 0, 2, 0, false}, {"finish, 1 part", 0, 1, 1, false},
    {"finish, 3 parts", 0, 1, 3, false}, {"finish, 1 part, residual", 0, 1, 1, true},
    {"finish, 3 parts, residual", 0, 1, 3, true}, {"finish, 1 part, 2 planes", 0, 2, 1, false},
    {"Products compared", 0, 0, 0, false},
};
constexpr int kCompared = 32;  // vectors, and columns

std::uint8_t *memory(std::int64_t bytes, int fill) {
  auto *pages = new rl::Pages;
  if (!pages->allocate(static_cast<std::size_t>(bytes))) {
    std::fprintf(stderr, "there is no memory for %lld bytes\n", static_cast<long long>(bytes));
    std::exit(1);
  }
  std::memset(pages->data(), fill, static_cast<std::size_t>(bytes));
  return pages->data();
}

// Bytes past the caches, as the unpacking kernels write where the processor can.
void write_all(std::uint8_t *to, std::int64_t bytes) {
#if defined(__x86_64__)
  const auto value = static_cast<long long>(reinterpret_cast<std::uintptr_t>(to));
  for (std::int64_t i = 0; i < bytes; i += 8) __builtin_ia32_movnti64(reinterpret_cast<long long *>(to + i), value);
  __builtin_ia32_sfence();
#else
  std::memset(to, 1, static_cast<std::size_t>(bytes));
#endif
}

class Work final : public rl::Job {
 public:
  Work(std::int64_t bytes, int threads)
      : bytes_(bytes),
        strips_(static_cast<int>(bytes / (rl::kStrip * kCols))),
        columns_(static_cast<int>(std::max<std::int64_t>(bytes / 3 / (4 * kRows) / 64 * 64, 64))),
        from_(memory(bytes, 0x5a)),
        to_(memory(bytes, 0)) {
    for (int i = 0; i < kTableBytes; ++i) tables_[i] = static_cast<std::int8_t>(37 * i);
    for (int t = 0; t < threads; ++t) {
      scratch_[t] = rl::Scratch{};
      scratch_[t].tables = reinterpret_cast<std::int8_t *>(memory(rl::kTableBytes, 0));
    }
    std::fill(ones_, ones_ + kRows, 1.0f);
    scale_ = reinterpret_cast<float *>(memory(std::int64_t{4} * columns_, 0));
    for (int c = 0; c < columns_; ++c) scale_[c] = 0.01f;
  }

  void take(const Kind &kind) {
    kind_ = &kind;
    open_ = false;
  }
  // Bytes written, for rows and sums the numbers that become others.
  std::int64_t elements(const Kind &kind) const {
    if (kind.parts > 0) return std::int64_t{kRows} / kind.planes * columns_;
    if (kind.planes > 0) return std::int64_t{rows()} * kCols;
    if (kind.name[0] == 'P') return std::int64_t{kCompared} * kCompared * kCols;
    return bytes_;
  }

  rl::Phase next(int) override {
    open_ = !open_;
    return rl::Phase{open_ ? units() : 0, 1};
  }
  void work(std::uint32_t first, std::uint32_t count, int thread) override {
    for (std::uint32_t unit = first; unit < first + count; ++unit) one(static_cast<int>(unit), thread);
  }

 private:
  static constexpr int kTableBytes = 16 * 16;
  static constexpr std::int64_t kChunk = 1 << 16;

  int rows() const { return static_cast<int>(std::min<std::int64_t>(bytes_ / (4 * kCols), kRows)); }
  std::uint32_t units() const {
    if (kind_->parts > 0) return static_cast<std::uint32_t>(columns_ / (kTogether * rl::kStrip));
    if (kind_->planes > 0) return static_cast<std::uint32_t>(rows() / kTogether);
    if (kind_->name[0] == 'P') return 1;
    return static_cast<std::uint32_t>(kind_->bits > 0 ? strips_ : bytes_ / kChunk);
  }
  void one(int unit, int thread) {
    if (kind_->parts > 0) return finish(unit, thread);
    if (kind_->planes > 0) return quantise(unit, scratch_[thread]);
    if (kind_->bits > 0) return unpack(unit, scratch_[thread]);
    if (kind_->name[0] == 'P') return compare();
    if (kind_->name[0] == 'w') return write_all(to_ + unit * kChunk, kChunk);
    std::memcpy(to_ + unit * kChunk, from_ + unit * kChunk, kChunk);
  }
  // One lane over all columns, all inputs one part: four strips lie side by side.
  void unpack(int strip, rl::Scratch &scratch) {
    constexpr int kTiles = kCols / rl::kTile;
    rl_band band{};
    band.bits = kind_->bits;
    band.cols = kCols;
    band.rows = rl::kStrip * strips_;
    band.codes = from_;
    band.index = kind_->bits == 8 ? nullptr : from_ + bytes_ / 2;
    band.tables = tables_;
    std::int8_t *run = reinterpret_cast<std::int8_t *>(to_) + std::int64_t{strip / 4} * 4 * kTiles * kTileBytes;
    kernels_.unpack(band, strip, 0, kTiles, 4 * kTileBytes, run + strip % 4 * kTileBytes, scratch);
  }
  // One tile of all rows.
  void quantise(int unit, rl::Scratch &scratch) {
    const bool in_order = std::strcmp(kind_->name, "quantise in order") == 0;
    const int planes = kind_->planes;
    for (int row = unit * kTogether; row < (unit + 1) * kTogether; ++row) {
      float scale;
      auto *q = reinterpret_cast<std::int8_t *>(to_) + std::int64_t{row} * planes * (in_order ? kCols : rl::kAtom);
      kernels_.quant(reinterpret_cast<const float *>(from_) + std::int64_t{row} * kCols, kCols, 0,
                     rl::QuantOut{q, &scale, kCols, planes, in_order ? 0 : rows() * planes * rl::kAtom}, scratch);
    }
  }
  // One part and one tile, as a program that is tried leaves them.
  void compare() {
    static const std::int32_t parts[] = {0, kCols}, tiles[] = {0, kCompared};
    std::int32_t all[kCompared], where[2];
    for (int i = 0; i < kCompared; ++i) all[i] = i;
    const rl_npu_lane lane{reinterpret_cast<const std::int8_t *>(from_), reinterpret_cast<const std::int8_t *>(from_),
                           reinterpret_cast<const std::int32_t *>(to_), parts, tiles, 1, 1, kCompared, 1};
    rl::npu::wrong_sums(lane, all, kCompared, all, kCompared, where);
  }
  void finish(int unit, int thread) {
    static const std::int32_t starts[] = {0, kRows};
    rl_band band{};
    band.rows = columns_;
    band.cols = kCols;
    band.bits = 4;
    band.scale = scale_;
    rl::LinearTask task{};
    task.band = &band;
    task.sx = ones_;
    task.y = reinterpret_cast<float *>(to_);
    task.residual = kind_->residual ? task.y : nullptr;
    task.y_stride = task.residual_stride = columns_;
    task.rows = kRows / kind_->planes;
    task.planes = kind_->planes;
    const rl::LaneSums sums{reinterpret_cast<const std::int32_t *>(from_),
                            std::int64_t{kRows} * columns_,
                            starts,
                            1,
                            kind_->parts,
                            columns_,
                            factors_,
                            checks_[thread]};
    const int first = unit * kTogether;
    kernels_.finish_lane(task, sums, first * rl::kStrip, first, first + kTogether);
  }

  const rl::Kernels &kernels_ = *rl::kernels(rl::best_kernel());
  const std::int64_t bytes_;
  const int strips_, columns_;
  std::uint8_t *const from_, *const to_;
  std::int8_t tables_[kTableBytes];
  float ones_[kRows];
  std::int32_t factors_[kTogether * rl::kStrip] = {};
  std::uint64_t checks_[kMostThreads][kRows * rl::kCheckLanes] = {};
  float *scale_;
  rl::Scratch scratch_[kMostThreads];
  const Kind *kind_ = nullptr;
  bool open_ = false;
};

void phase(int number) {
  getpriority(static_cast<__priority_which_t>(kMark), static_cast<id_t>(number));
}

}  // namespace

int main(int count, char **words) {
  const bool counts = count == 3 && std::strcmp(words[1], "count") == 0;
  if (!counts && !(count == 5 && std::strcmp(words[1], "times") == 0)) {
    std::fprintf(stderr, "give times THREADS TURNS MEBIBYTES, or count MEBIBYTES\n");
    return 1;
  }
  const int threads = counts ? 1 : std::atoi(words[2]), turns = counts ? 1 : std::atoi(words[3]);
  const std::int64_t bytes = std::atoll(words[count - 1]) << 20;
  rl::Pool pool;
  if (threads < 1 || threads > kMostThreads || turns < 1 || bytes < 1 || !pool.start(threads)) {
    std::fprintf(stderr, "at least one thread, turn and mebibyte, at most %d threads\n", kMostThreads);
    return 1;
  }
  static Work work(bytes, threads);
  constexpr int kCount = static_cast<int>(std::size(kKinds));
  std::int64_t least[kCount];
  std::fill(least, least + kCount, INT64_MAX);
  for (int turn = 0; turn < turns; ++turn)
    for (int k = 0; k < kCount; ++k) {
      work.take(kKinds[k]);
      if (counts) phase(k + 1);
      const std::int64_t start = rl::nanoseconds();
      pool.run(work);
      least[k] = counts ? k + 1 : std::min(least[k], rl::nanoseconds() - start);
      if (counts) phase(0);
    }
  for (int k = 0; k < kCount; ++k)
    std::printf("%s\t%lld\t%lld\n", kKinds[k].name, static_cast<long long>(work.elements(kKinds[k])),
                static_cast<long long>(least[k]));
  return 0;
}
