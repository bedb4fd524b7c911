// What the vendor's kernel driver takes through ioctl: its DRM flavour, versions 0.9.2 to 0.9.8.
//
// Declared here because boards rarely have the driver's header; every offset is asserted.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rl::npu::rknpu {

inline constexpr unsigned long kAction = 0xc0086440, kSubmit = 0xc0686441, kMemCreate = 0xc0306442,
                               kMemCreateBefore096 = 0xc0286442, kMemMap = 0xc0106443, kMemDestroy = 0xc0106444,
                               kMemSync = 0xc0206445;

struct Action {
  std::uint32_t action, value;
};
enum : std::uint32_t {
  kHardwareVersion = 0,
  kDriverVersion = 1,
  kGetFrequency = 2,
  kSoftReset = 6,
  kGetIommu = 18,
  kTotalSram = 22,  // bytes of system SRAM that the kernel gave to the NPU; 0 in stock kernels
  kFreeSram = 23,
};

// From 0.9.6 on; before, the structure ends after sram_size. `core_mask` is known from 0.9.8 on; 0.9.6 and 0.9.7 have a
// reserved field in its place, and 0 suits all three.
struct MemCreate {
  std::uint32_t handle, flags;
  std::uint64_t size, object, address, sram_size;
  std::int32_t domain;
  std::uint32_t core_mask;
};
inline constexpr std::size_t kMemCreateBytesBefore096 = 40;
static_assert(sizeof(MemCreate) == 48 && offsetof(MemCreate, object) == 16 && offsetof(MemCreate, address) == 24 &&
              offsetof(MemCreate, domain) == kMemCreateBytesBefore096);
enum : std::uint32_t {
  kNonContiguous = 1 << 0,
  kCacheable = 1 << 1,
  kKernelMapping = 1 << 3,
  kIommu = 1 << 4,
  kLimitAlignment = 1 << 10,  // from 0.9.7; without it the address allocator leaks
};

struct MemMap {
  std::uint32_t handle, reserved;
  std::uint64_t offset;
};
struct MemDestroy {
  std::uint32_t handle, reserved;
  std::uint64_t object;
};
struct MemSync {
  std::uint32_t flags, reserved;
  std::uint64_t object, offset, size;
};
static_assert(sizeof(MemMap) == 16 && sizeof(MemDestroy) == 16 && sizeof(MemSync) == 32);
enum : std::uint32_t { kToDevice = 1, kFromDevice = 2 };

struct Task {
  std::uint32_t flags, operation, enable_mask, int_mask, int_clear, int_status, amount, offset;
  std::uint64_t address;
};
static_assert(sizeof(Task) == 40 && offsetof(Task, amount) == 24 && offsetof(Task, address) == 32);
inline constexpr std::uint32_t kInterruptDpu = 0x300;  // either half of the DPU: the last block of our programs

struct Range {
  std::uint32_t start, number;
};
struct Submit {
  std::uint32_t flags, timeout_ms, task_start, task_number, task_counter;
  std::int32_t priority;
  std::uint64_t task_object;
  std::uint32_t domain, reserved;  // before 0.9.6 one unused 64-bit field
  std::uint64_t task_base;
  std::int64_t elapsed_ns;
  std::uint32_t core_mask;
  std::int32_t fence;
  Range cores[5];
};
static_assert(sizeof(Submit) == 104 && offsetof(Submit, task_object) == 24 && offsetof(Submit, task_base) == 40 &&
              offsetof(Submit, core_mask) == 56 && offsetof(Submit, cores) == 64);
enum : std::uint32_t { kPcMode = 1, kPingPong = 4 };

}  // namespace rl::npu::rknpu
