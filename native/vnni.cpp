// x86-64 with AVX-512 VNNI on 256-bit vectors, and thirty-two of them.
#define RL_ISA vnni
#include <immintrin.h>

#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::vnni {
constexpr int kBias = 128, kSums = 24, kTogether = 4, kStreamed = 12, kMultiplied = 8, kValueQueries = 4;
}  // namespace rl::vnni

#include "ymm.hpp"

namespace rl::vnni {
using Wide = Ymm;
}  // namespace rl::vnni

#include "vnni.hpp"
// The table comes last.
#include "table_of_kernels.hpp"

namespace rl {
extern const Kernels vnni_kernels;
const Kernels vnni_kernels = vnni::table_of(RL_KERNEL_VNNI);
}  // namespace rl
