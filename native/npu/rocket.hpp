// The mainline driver as a Device: three files, each an address space whose jobs run one after the other on some core.
#pragma once

#include "device.hpp"
#include "drm.hpp"

namespace rl::npu {

// `file` is the node at `path`, whose driver is `rocket`; it is opened twice more.
Owned<Device> open_rocket(File file, const char *path);

}  // namespace rl::npu
