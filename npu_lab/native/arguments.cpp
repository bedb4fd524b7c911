#include "arguments.hpp"

#include <cerrno>
#include <cstring>

#include "npu/drm.hpp"
#include "npu/rocket_uapi.hpp"
#include "user_memory.hpp"

namespace rl::virtual_npu {
namespace {

// Bits 30 and 31 of a request say whether the structure is read by the kernel, or written; 16 to 29 its size.
constexpr std::size_t size_of(unsigned long request) { return request >> 16 & 0x3fff; }
constexpr bool goes_in(unsigned long request) { return (request >> 30 & 1) != 0; }
constexpr bool comes_out(unsigned long request) { return (request >> 31 & 1) != 0; }

// Appends `count` elements from a caller's address; an errno.
int append(std::uint8_t *bytes, std::size_t &used, std::uint64_t from, std::uint64_t count, std::size_t element) {
  if (count > (kMostBytes - used) / element) return EINVAL;
  if (count > 0 && !copy_in(bytes + used, from, count * element)) return EFAULT;
  used += count * element;
  return 0;
}

// Appends elements that lie `stride` bytes apart, of which the kernel knows the first sizeof(T); an errno.
template <typename T>
int append_known(std::uint8_t *bytes, std::size_t &used, std::uint64_t from, std::uint64_t count, std::size_t stride) {
  if (stride == sizeof(T)) return append(bytes, used, from, count, sizeof(T));
  if (stride < sizeof(T)) return EINVAL;
  for (std::uint64_t i = 0; i < count; ++i)
    if (const int error = append(bytes, used, from + i * stride, 1, sizeof(T)); error != 0) return error;
  return 0;
}

// After the structure of a rocket submit: every job, and after each job its tasks, inputs and outputs. A job whose
// lists cannot be read goes without any: the kernel passes over both.
int append_jobs(std::uint8_t *bytes, std::size_t &used) {
  using npu::rocket::Job;
  npu::rocket::Submit submit{};
  std::memcpy(&submit, bytes, sizeof submit);
  if (submit.job_bytes < sizeof(Job) || submit.reserved != 0) return 0;  // the driver refuses it
  for (std::uint32_t i = 0; i < submit.job_count; ++i) {
    const std::size_t at = used;
    if (const int error = append(bytes, used, submit.jobs + std::uint64_t{i} * submit.job_bytes, 1, sizeof(Job)); error != 0)
      return error;
    Job job{};
    std::memcpy(&job, bytes + at, sizeof job);
    int error = append_known<npu::rocket::Task>(bytes, used, job.tasks, job.task_count, job.task_bytes);
    if (error == 0) error = append(bytes, used, job.inputs, job.input_count, sizeof(std::uint32_t));
    if (error == 0) error = append(bytes, used, job.outputs, job.output_count, sizeof(std::uint32_t));
    if (error == 0) continue;
    job.task_count = job.input_count = job.output_count = 0;
    std::memcpy(bytes + at, &job, sizeof job);
    used = at + sizeof job;
  }
  return 0;
}

// The strings behind a DRM version go where its pointers say, cut to the room there.
int copy_strings(const npu::DrmVersion &asked, const std::uint8_t *bytes, std::size_t size) {
  npu::DrmVersion told{};
  std::memcpy(&told, bytes, sizeof told);
  const struct {
    char *to;
    std::size_t room, length;
  } strings[] = {{asked.name, asked.name_bytes, told.name_bytes},
                 {asked.date, asked.date_bytes, told.date_bytes},
                 {asked.about, asked.about_bytes, told.about_bytes}};
  std::size_t at = sizeof told;
  for (const auto &s : strings) {
    if (s.length > size - at) return EIO;
    const std::size_t part = s.length < s.room ? s.length : s.room;
    if (s.to != nullptr && part > 0 && !copy_out(reinterpret_cast<std::uintptr_t>(s.to), bytes + at, part)) return EFAULT;
    at += s.length;
  }
  return 0;
}

}  // namespace

int perform(std::uint32_t file, unsigned long request, std::uint64_t argument) {
  Channel channel;
  if (!channel.ok()) return ENODEV;
  std::uint8_t *bytes = channel.bytes();
  const std::size_t size = size_of(request);
  std::memset(bytes, 0, size);
  if (goes_in(request) && size > 0 && !copy_in(bytes, argument, size)) return EFAULT;
  std::size_t used = size;
  npu::DrmVersion version{};
  if (request == npu::kDrmVersion) std::memcpy(&version, bytes, sizeof version);
  if (request == npu::rocket::kSubmit)
    if (const int error = append_jobs(bytes, used); error != 0) return error;
  const Reply reply = channel.exchange(Request{kIoctl, file, request, 0, 0, static_cast<std::uint32_t>(used)});
  if (reply.error != 0 && reply.bytes == 0) return reply.error;
  if (comes_out(request) && reply.bytes >= size) {
    if (request == npu::kDrmVersion)
      if (const int error = copy_strings(version, bytes, reply.bytes); error != 0) return error;
    if (request == npu::kDrmVersion) {  // the caller's pointers stay
      npu::DrmVersion told{};
      std::memcpy(&told, bytes, sizeof told);
      told.name = version.name;
      told.date = version.date;
      told.about = version.about;
      std::memcpy(bytes, &told, sizeof told);
    }
    if (size > 0 && !copy_out(argument, bytes, size)) return EFAULT;
  }
  return reply.error;
}

}  // namespace rl::virtual_npu
