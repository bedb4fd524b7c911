// An array of plain values that grows at its end, and reports failure instead of throwing.
#pragma once

#include <cstdlib>
#include <type_traits>

#include "../memory.hpp"

namespace rl::npu {

template <typename T>
class List {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  [[nodiscard]] bool append(const T &value) {
    if (size_ == room_) {
      const int room = room_ == 0 ? 16 : 2 * room_;
      auto *larger = static_cast<T *>(std::realloc(data_.get(), static_cast<std::size_t>(room) * sizeof(T)));
      if (larger == nullptr) return false;
      static_cast<void>(data_.release());
      data_.reset(larger);
      room_ = room;
    }
    data_.get()[size_++] = value;
    return true;
  }
  void clear() { size_ = 0; }
  int size() const { return size_; }
  T *data() { return data_.get(); }
  const T *data() const { return data_.get(); }
  T &operator[](int i) { return data_.get()[i]; }
  const T &operator[](int i) const { return data_.get()[i]; }
  const T *begin() const { return data_.get(); }
  const T *end() const { return data_.get() + size_; }

 private:
  std::unique_ptr<T, FreeDeleter> data_;
  int size_ = 0;
  int room_ = 0;
};

}  // namespace rl::npu
