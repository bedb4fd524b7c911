#include "rknpu.hpp"

#include <sys/mman.h>

#include <cstring>

#include "../error.hpp"
#include "caller.hpp"
#include "rknpu_uapi.hpp"

namespace rl::npu {
namespace {

using namespace rknpu;

constexpr std::uint32_t kOldest = 902, kDomainsFrom = 906, kAlignmentFrom = 907, kNewest = 908;
constexpr std::int64_t kMillisecond = 1000000;

class Rknpu final : public Device {
 public:
  explicit Rknpu(File file) : file_(std::move(file)) {}
  Rknpu(const Rknpu &) = delete;
  Rknpu &operator=(const Rknpu &) = delete;
  ~Rknpu() override {
    const bool stuck = caller_ != nullptr && caller_->busy();
    Caller::stop(std::move(caller_));
    if (!stuck && tasks_.data != nullptr) release(tasks_);
  }

  int start() {
    std::uint32_t version = 0, iommu = 0;
    if (const int error = action(kDriverVersion, version); error != 0)
      return fail("the rknpu driver does not report its version: %s; update the kernel", std::strerror(error));
    if (version < kOldest || version > kNewest)
      return fail("the rknpu driver has version %u.%u.%u, expected 0.9.2 to 0.9.8; use a kernel with one of these",
                  version / 10000, version / 100 % 100, version % 100);
    version_ = version;
    iommu_ = action(kGetIommu, iommu) == 0 ? static_cast<int>(iommu != 0) : -1;
    const std::int64_t bytes = round_up(std::int64_t{RL_NPU_CORES} * kPiecesInKick * std::int64_t{sizeof(Task)}, kPage);
    if (allocate_with(bytes, kKernelMapping, tasks_) < 0) return -1;
    caller_ = Caller::start(file_.fd());
    return caller_ == nullptr ? -1 : 0;
  }

  int allocate(int space, std::int64_t bytes, Memory &memory) override {
    static_cast<void>(space);
    return allocate_with(bytes, 0, memory);
  }

  void release(const Memory &memory) override {
    if (memory.data != nullptr) munmap(memory.data, static_cast<std::size_t>(memory.bytes));
    MemDestroy destroy{memory.handle, 0, memory.object};
    call(file_.fd(), kMemDestroy, &destroy);
  }

  int sync_range(const Memory &memory, std::int64_t offset, std::int64_t bytes, int direction) override {
    MemSync range{direction == RL_NPU_TO_DEVICE ? rknpu::kToDevice : rknpu::kFromDevice, 0, memory.object,
                  static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(bytes)};
    if (const int error = call(file_.fd(), kMemSync, &range); error != 0)
      return fail("the rknpu driver cannot sync a buffer: %s", std::strerror(error));
    return 0;
  }

  int submit(const CoreJob *jobs, int count, int timeout_ms) override {
    // Which entry of `cores` counts depends on how many cores there are: one has its own.
    static constexpr std::uint32_t kFirstSlot[] = {0, 0, 0, 2};
    std::uint32_t mask = 0;
    for (int i = 0; i < count; ++i) mask |= 1U << jobs[i].core;
    const std::uint32_t first_slot = count == 1 ? static_cast<std::uint32_t>(jobs[0].core) : kFirstSlot[count];
    Submit submit{};
    submit.flags = kPcMode | kPingPong;
    submit.timeout_ms = static_cast<std::uint32_t>(timeout_ms);
    submit.task_object = tasks_.object;
    submit.core_mask = mask;
    submit.fence = -1;
    auto *tasks = reinterpret_cast<Task *>(tasks_.data);
    std::uint32_t used = 0;
    for (int i = 0; i < count; ++i) {
      const CoreJob &job = jobs[i];
      submit.cores[first_slot + static_cast<std::uint32_t>(i)] = Range{used, job.count};
      for (std::uint32_t piece = 0; piece < job.count; ++piece) {
        Task task{};
        task.int_mask = task.int_clear = kInterruptDpu;
        task.amount = job.pieces[piece].body_words;
        task.address = job.pieces[piece].address;
        tasks[used++] = task;
      }
    }
    submit.task_number = used;
    if (sync(tasks_, 0, std::int64_t{used} * std::int64_t{sizeof(Task)}, RL_NPU_TO_DEVICE) < 0) return -1;
    timeout_ms_ = timeout_ms;
    expected_ = used;
    caller_->begin(kSubmit, &submit, sizeof submit);
    return 0;
  }

  Outcome wait() override {
    // The driver waits up to three times, and resets after that; one that takes much longer does not come back.
    constexpr std::int64_t kMargin = 10000;
    Submit submit{};
    const int error = caller_->end((3 * std::int64_t{timeout_ms_} + kMargin) * kMillisecond, &submit, sizeof submit);
    if (error == 0) {
      elapsed_ns_ = submit.elapsed_ns;
      if (submit.task_counter == expected_) return Outcome::kDone;
      fail("the NPU ended a job after %u programs, expected %u", submit.task_counter, expected_);
      return Outcome::kFailed;
    }
    if (error == -1) {
      fail("the rknpu driver did not return from a job");
      return Outcome::kGone;
    }
    if (error == ETIMEDOUT) {
      fail("a job on the NPU did not end within %d ms", timeout_ms_);
      return Outcome::kFailed;
    }
    fail("the rknpu driver refused a job: %s", std::strerror(error));
    return error == ENODEV || error == ENXIO || error == EBADF ? Outcome::kGone : Outcome::kFailed;
  }

  int reset() override {
    std::uint32_t ignored = 0;
    if (const int error = action(kSoftReset, ignored); error != 0)
      return fail("the rknpu driver cannot reset the NPU: %s", std::strerror(error));
    return 0;
  }

  std::int64_t elapsed_ns() const override { return elapsed_ns_; }
  int spaces() const override { return 1; }
  bool syncs_ranges() const override { return true; }

  void describe(rl_npu_description &d) const override {
    std::strcpy(d.driver, "rknpu");
    d.flavour = RL_NPU_RKNPU;
    d.version[0] = static_cast<std::int32_t>(version_ / 10000);
    d.version[1] = static_cast<std::int32_t>(version_ / 100 % 100);
    d.version[2] = static_cast<std::int32_t>(version_ % 100);
    d.iommu = iommu_;
    std::uint32_t hertz = 0;
    d.clock_hz = action(kGetFrequency, hertz) == 0 ? hertz : 0;
    std::uint32_t total = 0, free = 0;
    d.sram_bytes = action(kTotalSram, total) == 0 ? std::int64_t{total} : -1;
    d.sram_free_bytes = action(kFreeSram, free) == 0 ? std::int64_t{free} : -1;
  }

 private:
  int action(std::uint32_t what, std::uint32_t &value) const {
    Action action{what, value};
    const int error = call(file_.fd(), kAction, &action);
    value = action.value;
    return error;
  }

  int allocate_with(std::int64_t bytes, std::uint32_t flags, Memory &memory) {
    flags |= kCacheable;
    if (iommu_ != 0) flags |= kNonContiguous | (version_ >= kAlignmentFrom ? kLimitAlignment : kIommu);
    MemCreate create{};
    create.flags = flags;
    create.size = static_cast<std::uint64_t>(bytes);
    const unsigned long request = version_ >= kDomainsFrom ? kMemCreate : kMemCreateBefore096;
    if (const int error = call(file_.fd(), request, &create); error != 0)
      return fail("the rknpu driver cannot allocate a buffer of %lld bytes: %s; give the NPU less memory",
                  static_cast<long long>(bytes), std::strerror(error));
    const auto create_bytes = static_cast<std::uint64_t>(bytes);
    memory = Memory{nullptr, create.address, bytes, 0, create.handle, create.object};
    if (create.size < create_bytes || create.address % kPage != 0 || create.address == 0 ||
        create.address > kAddressLimit - create_bytes) {
      release(memory);
      return fail("the rknpu driver gave %llu bytes at %#llx for a buffer of %lld, expected pages below 4 GiB",
                  static_cast<unsigned long long>(create.size), static_cast<unsigned long long>(create.address),
                  static_cast<long long>(bytes));
    }
    MemMap map{create.handle, 0, 0};
    int error = call(file_.fd(), kMemMap, &map);
    void *data = MAP_FAILED;
    if (error == 0) {
      data = mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file_.fd(),
                  static_cast<off_t>(map.offset));
      error = errno;
    }
    if (data == MAP_FAILED) {
      release(memory);
      return fail("a buffer of the NPU cannot be mapped: %s", std::strerror(error));
    }
    memory.data = static_cast<std::uint8_t *>(data);
    // With the alignment flag the NPU writes zeros into a buffer that the CPU has not touched before.
    std::memset(data, 0, static_cast<std::size_t>(bytes));
    if (sync_range(memory, 0, bytes, RL_NPU_TO_DEVICE) < 0) {
      release(memory);
      return -1;
    }
    return 0;
  }

  File file_;
  Owned<Caller> caller_;
  Memory tasks_{};
  std::uint32_t version_ = 0;
  std::uint32_t expected_ = 0;
  std::int64_t elapsed_ns_ = 0;
  int iommu_ = -1;
  int timeout_ms_ = 0;
};

}  // namespace

Owned<Device> open_rknpu(File file) {
  Owned<Rknpu> device = make_owned<Rknpu>(std::move(file));
  if (device == nullptr) fail("not enough memory for the NPU; free some memory");
  if (device == nullptr || device->start() < 0) return nullptr;
  return Owned<Device>(device.release());
}

}  // namespace rl::npu
