// What the mainline driver `rocket` takes through ioctl (Linux 6.18). Declared here because older systems lack the
// header; every offset is asserted.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rl::npu::rocket {

inline constexpr unsigned long kCreate = 0xc0186440, kSubmit = 0x40186441, kPrepare = 0x40106442, kFinish = 0x40086443;

struct Create {
  std::uint32_t size, handle;
  std::uint64_t address, offset;
};
struct Submit {
  std::uint64_t jobs;
  std::uint32_t job_count, job_bytes;
  std::uint64_t reserved;
};
struct Prepare {
  std::uint32_t handle, reserved;
  std::int64_t deadline_ns;  // absolute, CLOCK_MONOTONIC
};
struct Finish {
  std::uint32_t handle, reserved;
};
struct Job {
  std::uint64_t tasks, inputs, outputs;
  std::uint32_t task_count, task_bytes, input_count, output_count;
};
struct Task {
  std::uint32_t address, words;  // the trailer included
};
static_assert(sizeof(Create) == 24 && offsetof(Create, address) == 8 && sizeof(Submit) == 24 && sizeof(Prepare) == 16);
static_assert(sizeof(Finish) == 8 && sizeof(Job) == 40 && offsetof(Job, task_count) == 24 && sizeof(Task) == 8);

}  // namespace rl::npu::rocket
