// Finds the NPU among the nodes of /dev by the name of their driver, and says what keeps it from being opened.
#include <limits.h>
#include <sys/file.h>

#include <cstdio>
#include <cstring>

#include "../error.hpp"
#include "device.hpp"
#include "drm.hpp"
#include "rknpu.hpp"
#include "rocket.hpp"

namespace rl::npu {
namespace {

struct Place {
  const char *pattern;     // of a node, for printf
  const char *driver_link; // where sysfs says whose node it is
  int first, count;
};
// Render nodes come first: they need no more than the group `render`.
constexpr Place kVendor[] = {
    {"/dev/dri/renderD%d", "/sys/class/drm/renderD%d/device/driver", 128, 16},
    {"/dev/dri/card%d", "/sys/class/drm/card%d/device/driver", 0, 16},
};
constexpr Place kMainline[] = {{"/dev/accel/accel%d", "/sys/class/accel/accel%d/device/driver", 0, 16}};

struct Flavour {
  const char *driver;          // as DRM calls it
  const char *platform_driver; // as sysfs calls it
  const Place *places;
  int n_places;
};
constexpr Flavour kFlavours[] = {{"rknpu", "RKNPU", kVendor, 2}, {"rocket", "rocket", kMainline, 1}};

struct Found {
  File file;
  char path[64] = "";
  char denied[64] = "";  // a node of this driver, or of one unknown, that may not be opened
};

bool driver_is(int fd, const char *name) {
  char found[32] = "";
  DrmVersion version{};
  version.name = found;
  version.name_bytes = sizeof found - 1;
  return call(fd, kDrmVersion, &version) == 0 && std::strcmp(found, name) == 0;
}

// False only if sysfs knows that the node belongs to another driver.
bool may_be(const char *link, const char *platform_driver) {
  char target[PATH_MAX];
  const ssize_t size = readlink(link, target, sizeof target - 1);
  if (size < 0) return true;
  target[size] = '\0';
  const char *name = std::strrchr(target, '/');
  return std::strcmp(name == nullptr ? target : name + 1, platform_driver) == 0;
}

Found find(const Flavour &flavour) {
  Found found;
  for (int p = 0; p < flavour.n_places; ++p) {
    const Place &place = flavour.places[p];
    for (int number = place.first; number < place.first + place.count; ++number) {
      char path[64], link[64];
      std::snprintf(path, sizeof path, place.pattern, number);
      std::snprintf(link, sizeof link, place.driver_link, number);
      File file(open(path, O_RDWR | O_CLOEXEC));
      if (file.fd() >= 0 && driver_is(file.fd(), flavour.driver)) {
        found.file = std::move(file);
        std::strcpy(found.path, path);
        return found;
      }
      if (file.fd() < 0 && (errno == EACCES || errno == EPERM) && found.denied[0] == '\0' &&
          may_be(link, flavour.platform_driver))
        std::strcpy(found.denied, path);
    }
  }
  return found;
}

int refuse(const char *wanted, const char *denied) {
  if (denied[0] != '\0')
    return fail("%s cannot be opened by this user; install deploy/udev/60-rockledge-npu.rules, add the user to the group "
                "render (sudo usermod -aG render USER) and log in again", denied);
  if (access("/dev/rknpu", F_OK) == 0)
    return fail("this kernel offers the NPU only as /dev/rknpu (built without DRM); use a kernel with the DRM flavour of rknpu");
  return fail("there is no NPU here%s%s: neither a node in /dev/dri with the driver rknpu nor one in /dev/accel with rocket; "
              "boot an RK3588 with the vendor's kernel (rknpu 0.9.2 to 0.9.8) or Linux 6.18, or try `rockledge npu emulate`",
              wanted[0] == '\0' ? "" : " with ", wanted);
}

}  // namespace

Owned<Device> open_device(int flavour, char *path, int path_bytes) {
  if (flavour < RL_NPU_AUTO || flavour > RL_NPU_ROCKET) {
    fail("the flavour of the NPU is %d, expected 0 (any), 1 (rknpu) or 2 (rocket)", flavour);
    return nullptr;
  }
  char denied[64] = "";
  for (int i = 0; i < 2; ++i) {
    if (flavour != RL_NPU_AUTO && flavour != i + 1) continue;
    Found found = find(kFlavours[i]);
    if (denied[0] == '\0') std::strcpy(denied, found.denied);
    if (found.file.fd() < 0) continue;
    std::snprintf(path, static_cast<std::size_t>(path_bytes), "%s", found.path);
    // Two processes that submit at once have crashed boards. The lock ends with the file.
    if (flock(found.file.fd(), LOCK_EX | LOCK_NB) != 0) {
      fail(errno == EWOULDBLOCK ? "%s is in use by another process of Rockledge or another model of this one; end that one first"
                                : "%s cannot be locked", path);
      return nullptr;
    }
    return i + 1 == RL_NPU_RKNPU ? open_rknpu(std::move(found.file)) : open_rocket(std::move(found.file), found.path);
  }
  refuse(flavour == RL_NPU_AUTO ? "" : kFlavours[flavour - 1].driver, denied);
  return nullptr;
}

}  // namespace rl::npu
