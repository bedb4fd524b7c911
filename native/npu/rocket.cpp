#include "rocket.hpp"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "../clock.hpp"
#include "../error.hpp"
#include "rocket_uapi.hpp"

namespace rl::npu {
namespace {

using namespace rocket;

constexpr int kSpaces = RL_NPU_CORES;
constexpr std::int64_t kMillisecond = 1000000;
// After which the driver resets a core by itself, whatever number of programs the job has (JOB_TIMEOUT_MS in rocket_job.c).
constexpr std::int64_t kKernelTimeout = 500 * kMillisecond;
// How long a file stays open after the end of its last job. A job's buffers are given back by a worker of the kernel's
// scheduler, some time after its end; if the file is closed before, the stock driver then follows freed memory (gregordinary's
// patches/rocket/084-rocket-drv-fix-bo-mm-uaf.patch). The worker is due at once, and gets a processor within a few scheduler
// ticks of at most 10 ms.
constexpr std::int64_t kCloseGrace = 50 * kMillisecond;

class Rocket final : public Device {
 public:
  Rocket(const Rocket &) = delete;
  Rocket &operator=(const Rocket &) = delete;
  explicit Rocket(File file) { files_[0] = std::move(file); }
  ~Rocket() override {
    settle();
    for (int space = 0; space < kSpaces; ++space)
      if (guards_[space].handle != 0) release(guards_[space]);
  }

  int start(const char *path) {
    for (int space = 1; space < kSpaces; ++space) {
      files_[space] = File(open(path, O_RDWR | O_CLOEXEC));
      if (files_[space].fd() < 0) return fail("%s cannot be opened again: %s", path, std::strerror(errno));
    }
    // Addresses begin at 0, which must not be that of anything: a forgotten address shall not work.
    for (int space = 0; space < kSpaces; ++space)
      if (allocate(space, kPage, guards_[space]) < 0) return -1;
    return tasks_.allocate(std::size_t{kSpaces} * kPiecesInKick) ? 0 : fail("not enough memory for the NPU; free some memory");
  }

  int allocate(int space, std::int64_t bytes, Memory &memory) override {
    if (bytes > std::int64_t{UINT32_MAX} - kPage)
      return fail("a buffer of %lld bytes does not fit the NPU's 32-bit addresses; split it", static_cast<long long>(bytes));
    const int fd = files_[space].fd();
    Create create{};
    create.size = static_cast<std::uint32_t>(bytes);
    if (const int error = call(fd, kCreate, &create); error != 0)
      return fail("the rocket driver cannot allocate a buffer of %lld bytes: %s; give the NPU less memory",
                  static_cast<long long>(bytes), std::strerror(error));
    memory = Memory{nullptr, create.address, bytes, space, create.handle, 0};
    if (create.address % kPage != 0 || create.address > kAddressLimit - static_cast<std::uint64_t>(bytes)) {
      release(memory);
      return fail("the rocket driver gave address %#llx to a buffer of %lld bytes, expected pages below 4 GiB",
                  static_cast<unsigned long long>(create.address), static_cast<long long>(bytes));
    }
    void *data = mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                      static_cast<off_t>(create.offset));
    if (data == MAP_FAILED) {
      const int error = errno;
      release(memory);
      return fail("a buffer of the NPU cannot be mapped: %s", std::strerror(error));
    }
    memory.data = static_cast<std::uint8_t *>(data);
    std::memset(data, 0, static_cast<std::size_t>(bytes));
    if (sync_range(memory, 0, bytes, RL_NPU_TO_DEVICE) < 0) {
      release(memory);
      return -1;
    }
    return 0;
  }

  void release(const Memory &memory) override {
    if (memory.data != nullptr) munmap(memory.data, static_cast<std::size_t>(memory.bytes));
    GemClose close{memory.handle, 0};
    call(files_[memory.space].fd(), kGemClose, &close);
  }

  int sync_range(const Memory &memory, std::int64_t, std::int64_t, int direction) override {
    const int fd = files_[memory.space].fd();
    int error = 0;
    if (direction == RL_NPU_TO_DEVICE) {
      Finish finish{memory.handle, 0};
      error = call(fd, kFinish, &finish);
    } else {
      error = prepare(memory.space, memory.handle, nanoseconds() + kKernelTimeout);
    }
    return error == 0 ? 0 : fail("the rocket driver cannot sync a buffer: %s", std::strerror(error));
  }

  int submit(const CoreJob *jobs, int count, int timeout_ms) override {
    deadline_ = nanoseconds() + timeout_ms * kMillisecond;
    timeout_ms_ = timeout_ms;
    running_ = 0;
    for (int i = 0; i < count; ++i) {
      const CoreJob &from = jobs[i];
      Task *tasks = tasks_.data() + std::ptrdiff_t{i} * kPiecesInKick;
      for (std::uint32_t piece = 0; piece < from.count; ++piece)
        tasks[piece] = Task{static_cast<std::uint32_t>(from.pieces[piece].address), from.pieces[piece].body_words + 4};
      // Waiting for a buffer invalidates all of it: what is waited for is a page that every job claims to write.
      std::uint32_t outputs[RL_NPU_ROLES + 2];
      std::copy_n(from.writes, from.n_writes, outputs);
      outputs[from.n_writes] = guards_[from.space].handle;
      Job job{};
      job.tasks = reinterpret_cast<std::uintptr_t>(tasks);
      job.inputs = reinterpret_cast<std::uintptr_t>(from.reads);
      job.outputs = reinterpret_cast<std::uintptr_t>(outputs);
      job.task_count = from.count;
      job.task_bytes = sizeof(Task);
      job.input_count = from.n_reads;
      job.output_count = from.n_writes + 1;
      Submit submit{reinterpret_cast<std::uintptr_t>(&job), 1, sizeof(Job), 0};
      if (const int error = call(files_[from.space].fd(), rocket::kSubmit, &submit); error != 0) {
        return fail("the rocket driver refused a job: %s", std::strerror(error));
      }
      spaces_running_[running_++] = from.space;
    }
    return 0;
  }

  Outcome wait() override {
    for (int i = 0; i < running_; ++i) {
      const int error = prepare(spaces_running_[i], guards_[spaces_running_[i]].handle, deadline_);
      if (error == 0) continue;
      if (error == ETIMEDOUT || error == EBUSY) {
        fail("a job on the NPU did not end within %d ms", timeout_ms_);
        return Outcome::kFailed;
      }
      fail("the rocket driver cannot wait for a job: %s", std::strerror(error));
      return error == ENODEV || error == ENXIO || error == EBADF ? Outcome::kGone : Outcome::kFailed;
    }
    running_ = 0;
    ended_ = nanoseconds();
    return Outcome::kDone;
  }

  // The driver resets a core whose job takes too long, by itself: what is left to do is to wait until it has.
  int reset() override {
    // Jobs may have been put on one core, one after the other.
    const std::int64_t deadline = nanoseconds() + (std::int64_t{running_} + 2) * kKernelTimeout;
    for (int i = 0; i < running_; ++i)
      if (const int error = prepare(spaces_running_[i], guards_[spaces_running_[i]].handle, deadline); error != 0)
        return fail("a core of the NPU did not recover: %s", std::strerror(error));
    running_ = 0;
    ended_ = nanoseconds();
    return 0;
  }

  int spaces() const override { return kSpaces; }
  bool syncs_ranges() const override { return false; }

  void describe(rl_npu_description &d) const override {
    std::strcpy(d.driver, "rocket");
    d.flavour = RL_NPU_ROCKET;
    d.iommu = 1;
    d.sram_bytes = d.sram_free_bytes = 0;  // mainline does not map it
    DrmVersion version{};
    if (call(files_[0].fd(), kDrmVersion, &version) == 0) {
      d.version[0] = version.major;
      d.version[1] = version.minor;
      d.version[2] = version.patch;
    }
  }

 private:
  // What has to be over before the files are closed.
  void settle() {
    const std::int64_t deadline = nanoseconds() + (std::int64_t{running_} + 2) * kKernelTimeout;
    // A job whose end nobody tells counts as ended when the driver had its time for it.
    for (int i = 0; i < running_; ++i) {
      prepare(spaces_running_[i], guards_[spaces_running_[i]].handle, deadline);
      ended_ = nanoseconds();
    }
    const std::int64_t left = ended_ == 0 ? 0 : ended_ + kCloseGrace - nanoseconds();
    const timespec rest{0, left};
    if (left > 0) nanosleep(&rest, nullptr);
  }

  int prepare(int space, std::uint32_t handle, std::int64_t deadline) const {
    Prepare prepare{handle, 0, deadline};
    return call(files_[space].fd(), kPrepare, &prepare);
  }

  File files_[kSpaces];
  Memory guards_[kSpaces] = {};
  Array<Task> tasks_;
  int spaces_running_[kSpaces] = {};
  int running_ = 0;
  std::int64_t deadline_ = 0;
  std::int64_t ended_ = 0;  // the latest job
  int timeout_ms_ = 0;
};

}  // namespace

Owned<Device> open_rocket(File file, const char *path) {
  Owned<Rocket> device = make_owned<Rocket>(std::move(file));
  if (device == nullptr) fail("not enough memory for the NPU; free some memory");
  if (device == nullptr || device->start(path) < 0) return nullptr;
  return Owned<Device>(device.release());
}

}  // namespace rl::npu
