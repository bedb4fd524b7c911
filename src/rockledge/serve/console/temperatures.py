"""The temperatures that the kernel shows of this machine.

https://docs.kernel.org/driver-api/thermal/sysfs-api.html: each `thermal_zone*` has a `type`, its name, and
`temp` in thousandths of a degree Celsius. Reading one may fail while its sensor sleeps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rockledge.runtime.sysfs_number import sysfs_number

ZONES = Path("/sys/class/thermal")


@dataclass(frozen=True)
class Temperature:
    """Of one zone."""

    name: str
    celsius: float

    def body(self) -> dict[str, Any]:
        """As the page gets it."""
        return asdict(self)


def temperatures(zones: Path = ZONES) -> list[Temperature]:
    """Those that can be read, in the order of the zones' numbers; none where there are no zones."""
    found = []
    for zone in sorted(zones.glob("thermal_zone*"), key=_number):
        try:
            name = (zone / "type").read_text(errors="replace").strip()
            thousandths = sysfs_number((zone / "temp").read_text(errors="replace"))
        except OSError:
            continue
        if thousandths is not None:
            found.append(Temperature(name, thousandths / 1000))
    return found


def _number(zone: Path) -> int:
    digits = zone.name.removeprefix("thermal_zone")
    return int(digits) if digits.isdecimal() else 0
