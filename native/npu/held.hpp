// What a plan relies on, its places in buffers and its programs: nobody releases or destroys them while this lives.
#pragma once

#include "npu.hpp"

namespace rl::npu {

class Held {
 public:
  Held() = default;
  explicit Held(Shared<Npu> npu) : npu_(std::move(npu)) {}
  Held(const Held &) = delete;
  Held &operator=(const Held &) = delete;
  ~Held();

  // -1 and a sentence for a place that is not there or is too small, a program that is another plan's, or no memory.
  int place(const char *what, const rl_npu_place &place, int lane, std::int64_t bytes);
  int program(int number);
  // Also with what another plan holds.
  int check_overlaps(const Held *beside = nullptr) const;

 private:
  struct Range {
    std::int32_t buffer;
    std::int64_t offset, bytes;
  };
  int hold(const Range &range);

  Shared<Npu> npu_;
  List<Range> ranges_;  // each holds its buffer
  List<std::int32_t> programs_;
};

}  // namespace rl::npu
