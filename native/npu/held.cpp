#include "held.hpp"

#include <algorithm>

#include "../error.hpp"

namespace rl::npu {
namespace {

constexpr std::int64_t kPlaceAlignment = 64;

int no_memory() { return fail("not enough memory for a plan of the NPU; free some memory"); }

}  // namespace

Held::~Held() {
  for (const Range &range : ranges_) npu_->hold_buffer(range.buffer, -1);
  for (const std::int32_t program : programs_) npu_->hold_program(program, -1);
}

int Held::hold(const Range &range) {
  if (!ranges_.append(range)) return no_memory();
  npu_->hold_buffer(range.buffer, 1);
  return 0;
}

int Held::place(const char *what, const rl_npu_place &place, int lane, std::int64_t bytes) {
  const Memory *memory = npu_->memory(place.buffer);
  if (memory == nullptr) return -1;
  if (place.offset < 0 || place.offset % kPlaceAlignment != 0 || bytes > memory->bytes ||
      place.offset > memory->bytes - bytes)
    return fail("%s of lane %d is %lld bytes from byte %lld of a buffer of %lld on, expected a multiple of %lld, and room",
                what, lane, static_cast<long long>(bytes), static_cast<long long>(place.offset),
                static_cast<long long>(memory->bytes), static_cast<long long>(kPlaceAlignment));
  if (memory->space != (npu_->spaces() == 1 ? 0 : lane))
    return fail("%s of lane %d lies in address space %d; where there are several, each lane has its own", what, lane,
                memory->space);
  return hold(Range{place.buffer, place.offset, bytes});
}

int Held::program(int number) {
  const Loaded *loaded = npu_->program(number);
  if (loaded == nullptr) return -1;
  if (loaded->held()) return fail("program %d is twice in a plan; load it once for each lane and instance", number);
  if (!programs_.append(number)) return no_memory();
  npu_->hold_program(number, 1);
  return hold(Range{loaded->buffer(), loaded->offset(), loaded->bytes()});
}

int Held::check_overlaps(const Held *beside) const {
  List<Range> all;
  for (const Held *held : {this, beside})
    if (held != nullptr)
      for (const Range &range : held->ranges_)
        if (!all.append(range)) return no_memory();
  std::sort(all.data(), all.data() + all.size(), [](const Range &a, const Range &b) {
    return a.buffer < b.buffer || (a.buffer == b.buffer && a.offset < b.offset);
  });
  for (int i = 1; i < all.size(); ++i) {
    const Range &before = all[i - 1], &range = all[i];
    if (before.buffer == range.buffer && range.offset < before.offset + before.bytes)
      return fail("two places of a plan overlap at byte %lld of buffer %d", static_cast<long long>(range.offset),
                  range.buffer);
  }
  return 0;
}

}  // namespace rl::npu
