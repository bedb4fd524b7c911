// x86-64 with AVX-512 VNNI on 512-bit vectors: half as many instructions, which pays where the processor's units are as wide.
#define RL_ISA vnni512
#include <immintrin.h>

#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::vnni512 {
constexpr int kBias = 128, kSums = 32, kTogether = 4, kStreamed = 6, kMultiplied = 8, kValueQueries = 8;
}  // namespace rl::vnni512

#include "zmm.hpp"

namespace rl::vnni512 {
using Wide = Zmm;
}  // namespace rl::vnni512

#include "vnni.hpp"
// The table comes last.
#include "table_of_kernels.hpp"

namespace rl {
extern const Kernels vnni512_kernels;
const Kernels vnni512_kernels = vnni512::table_of(RL_KERNEL_VNNI512);
}  // namespace rl
