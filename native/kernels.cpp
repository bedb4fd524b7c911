// Which kernels this build has and this processor can run.
#include "kernels.hpp"

#include <atomic>
#include <initializer_list>

#include "trial.hpp"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace rl {

extern const Kernels portable_kernels;

#if defined(__x86_64__)
extern const Kernels avx2_kernels, vnni_kernels, vnni512_kernels;
namespace {
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
}  // namespace
#elif defined(__aarch64__)
extern const Kernels neon_kernels;
namespace {
constexpr unsigned long kHalfFloats = 1UL << 10, kDotProduct = 1UL << 20;  // HWCAP_ASIMDHP, HWCAP_ASIMDDP
bool has_neon_dot() {
  const unsigned long wanted = kHalfFloats | kDotProduct;
  return (getauxval(AT_HWCAP) & wanted) == wanted;
}
}  // namespace
#endif

const Kernels *kernels(int id) {
  switch (id) {
    case RL_KERNEL_PORTABLE: return &portable_kernels;
#if defined(__x86_64__)
    case RL_KERNEL_AVX2: return has_avx2() ? &avx2_kernels : nullptr;
    case RL_KERNEL_VNNI: return has_vnni() ? &vnni_kernels : nullptr;
    case RL_KERNEL_VNNI512: return has_vnni() ? &vnni512_kernels : nullptr;
#elif defined(__aarch64__)
    case RL_KERNEL_NEON: return has_neon_dot() ? &neon_kernels : nullptr;
#endif
    default: return nullptr;
  }
}

namespace {
int choose() {
  for (int id : {RL_KERNEL_NEON, RL_KERNEL_VNNI, RL_KERNEL_AVX2}) {
    const Kernels *found = kernels(id), *wide = kernels(RL_KERNEL_VNNI512);
    if (found == nullptr) continue;
    return id == RL_KERNEL_VNNI && wide != nullptr && is_faster(*wide, *found) ? RL_KERNEL_VNNI512 : id;
  }
  return RL_KERNEL_PORTABLE;
}
}  // namespace

int best_kernel() {
  static std::atomic<int> chosen{RL_KERNEL_AUTO};
  int best = chosen.load();
  if (best != RL_KERNEL_AUTO) return best;
  const int found = choose();
  // Of two threads that measured at the same time, the first one's answer stands.
  return chosen.compare_exchange_strong(best, found) ? found : best;
}

const char *kernel_name(int id) {
  switch (id) {
    case RL_KERNEL_PORTABLE: return "portable";
    case RL_KERNEL_AVX2: return "avx2";
    case RL_KERNEL_NEON: return "neon";
    case RL_KERNEL_VNNI: return "vnni";
    case RL_KERNEL_VNNI512: return "vnni512";
    default: return "unknown";
  }
}

}  // namespace rl
