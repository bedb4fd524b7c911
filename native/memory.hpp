// Memory the core owns: arrays that free themselves, and report failure instead of throwing.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace rl {

struct FreeDeleter {
  void operator()(void *p) const { std::free(p); }
};

// A fixed-size array of plain values, zeroed. `allocate` returns false when memory runs out.
template <typename T>
class Array {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  [[nodiscard]] bool allocate(std::size_t count) {
    data_.reset(static_cast<T *>(std::calloc(count == 0 ? 1 : count, sizeof(T))));
    size_ = data_ ? count : 0;
    return data_ != nullptr;
  }
  T *data() { return data_.get(); }
  const T *data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  T &operator[](std::size_t i) { return data_.get()[i]; }
  const T &operator[](std::size_t i) const { return data_.get()[i]; }
  T *begin() { return data(); }
  T *end() { return data() + size_; }
  const T *begin() const { return data(); }
  const T *end() const { return data() + size_; }

 private:
  std::unique_ptr<T, FreeDeleter> data_;
  std::size_t size_ = 0;
};

// Anonymous zero pages: page-aligned, committed by the kernel only when first touched. Many of them ask for huge ones: a
// long context is read in pieces far apart, each of which would miss the processor's table of pages.
class Pages {
  static constexpr std::size_t kWorthHuge = std::size_t{64} << 20;

 public:
  Pages() = default;
  Pages(const Pages &) = delete;
  Pages &operator=(const Pages &) = delete;
  ~Pages() { release(); }

  [[nodiscard]] bool allocate(std::size_t bytes) {
    release();
    void *p = mmap(nullptr, bytes == 0 ? 1 : bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return false;
    data_ = static_cast<std::uint8_t *>(p);
    if (bytes >= kWorthHuge) madvise(p, bytes, MADV_HUGEPAGE);
    size_ = bytes == 0 ? 1 : bytes;
    return true;
  }
  std::uint8_t *data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  void release() {
    if (data_ != nullptr) munmap(data_, size_);
    data_ = nullptr;
    size_ = 0;
  }
  std::uint8_t *data_ = nullptr;
  std::size_t size_ = 0;
};

// `new` without exceptions and without the C++ run-time library.
template <typename T>
struct Destroy {
  void operator()(T *p) const {
    p->~T();
    std::free(p);
  }
};
template <typename T>
using Owned = std::unique_ptr<T, Destroy<T>>;

template <typename T, typename... Args>
Owned<T> make_owned(Args &&...args) {
  void *p = nullptr;
  if (posix_memalign(&p, alignof(T) < 64 ? 64 : alignof(T), sizeof(T)) != 0) return nullptr;
  return Owned<T>(::new (p) T(std::forward<Args>(args)...));
}

// One value of several owners, who may let go of it in any order and on any thread.
template <typename T>
class Shared {
 public:
  Shared() = default;
  // Empty when memory runs out.
  template <typename... Args>
  static Shared make(Args &&...args) {
    Shared made;
    made.box_ = make_owned<Box>(std::forward<Args>(args)...).release();
    return made;
  }
  Shared(const Shared &other) : box_(other.box_) {
    if (box_ != nullptr) box_->owners.fetch_add(1, std::memory_order_relaxed);
  }
  Shared(Shared &&other) noexcept : box_(std::exchange(other.box_, nullptr)) {}
  Shared &operator=(Shared other) noexcept {
    std::swap(box_, other.box_);
    return *this;
  }
  ~Shared() {
    if (box_ != nullptr && box_->owners.fetch_sub(1, std::memory_order_acq_rel) == 1) Owned<Box>{box_}.reset();
  }
  T *operator->() const { return &box_->value; }
  T &operator*() const { return box_->value; }
  explicit operator bool() const { return box_ != nullptr; }

 private:
  struct Box {
    template <typename... Args>
    explicit Box(Args &&...args) : value(std::forward<Args>(args)...) {}
    T value;
    std::atomic<int> owners{1};
  };
  Box *box_ = nullptr;
};

inline std::int64_t round_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

}  // namespace rl
