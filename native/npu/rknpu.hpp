// The vendor's kernel driver as a Device: one address space, three cores in one submit.
#pragma once

#include "device.hpp"
#include "drm.hpp"

namespace rl::npu {

// `file`: a DRM node whose driver is `rknpu`. Null and a sentence for a version nobody has tried.
Owned<Device> open_rknpu(File file);

}  // namespace rl::npu
