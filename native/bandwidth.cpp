#include "bandwidth.hpp"

#include <algorithm>
#include <cstring>

#include "clock.hpp"
#include "error.hpp"
#include "kernels.hpp"
#include "memory.hpp"
#include "pool.hpp"

namespace rl {
namespace {

constexpr std::int64_t kChunk = 1 << 20;
constexpr int kMostThreads = 64;

// One pass over a buffer, in chunks: fills it first, reads it afterwards.
class Pass final : public Job {
 public:
  Pass(const Kernels &kernels, std::uint8_t *data, std::uint32_t chunks)
      : kernels_(kernels), data_(data), chunks_(chunks) {}

  Phase next(int) override {
    open_ = !open_;
    return Phase{open_ ? chunks_ : 0, 1};
  }
  void work(std::uint32_t first, std::uint32_t count, int) override {
    std::uint8_t *from = data_ + std::int64_t{first} * kChunk;
    const std::int64_t bytes = std::int64_t{count} * kChunk;
    if (filled)
      found_.fetch_xor(kernels_.read_all(from, bytes), std::memory_order_relaxed);
    else
      std::memset(from, 1, static_cast<std::size_t>(bytes));
  }

  bool filled = false;

 private:
  const Kernels &kernels_;
  std::uint8_t *data_;
  std::uint32_t chunks_;
  bool open_ = false;
  std::atomic<std::int32_t> found_{0};  // so that no compiler leaves the reading out
};

}  // namespace

double read_bandwidth(std::int64_t bytes, int threads, int repeats, bool huge) {
  if (bytes < kChunk || bytes / kChunk > INT32_MAX || threads < 1 || threads > kMostThreads || repeats < 1)
    return fail("the bandwidth of %lld bytes, %d threads and %d repeats cannot be measured; take at least %lld bytes, "
                "1 to %d threads and 1 repeat",
                static_cast<long long>(bytes), threads, repeats, static_cast<long long>(kChunk), kMostThreads);
  const auto chunks = static_cast<std::uint32_t>(bytes / kChunk);
  const std::int64_t used = chunks * kChunk;
  Pages memory;
  if (!memory.allocate(static_cast<std::size_t>(used)))
    return fail("not enough memory for a buffer of %lld bytes; measure with fewer", static_cast<long long>(used));
  madvise(memory.data(), static_cast<std::size_t>(used), huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  Pool pool;
  if (!pool.start(threads)) return fail("the system refused to start %d threads; use fewer", threads);
  Pass pass(*kernels(best_kernel()), memory.data(), chunks);
  pool.run(pass);
  pass.filled = true;
  std::int64_t least = INT64_MAX;
  for (int i = 0; i < repeats; ++i) {
    const std::int64_t start = nanoseconds();
    pool.run(pass);
    least = std::min(least, nanoseconds() - start);
  }
  return 1e9 * static_cast<double>(used) / static_cast<double>(std::max<std::int64_t>(least, 1));
}

}  // namespace rl
