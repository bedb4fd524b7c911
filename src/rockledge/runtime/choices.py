"""What a user can choose by name: kernels, how the NPU is asked for, its drivers. Cheap to import."""

from collections.abc import Mapping
from typing import Final

KERNELS: Final[Mapping[str, int]] = {"auto": -1, "portable": 0, "avx2": 1, "vnni": 3, "vnni512": 4, "neon": 2}
"""Kernels by name, with their numbers in native/rockledge.h; "auto" is the best this processor
supports, of which a short measurement decides where flags cannot."""

NPU_MODES: Final = ("auto", "off", "require")
"""Prompts are read on the NPU where it can be used, never, or not without it."""

NPU_DRIVERS: Final[Mapping[str, int]] = {"auto": 0, "rknpu": 1, "rocket": 2}
"""The NPU's kernel drivers, with their numbers in native/npu/npu.h; "auto" takes the one that is there."""

# Sampling where neither user nor model say: what differs from greedy.
GREEDY: dict[str, float] = {}
CONVERSATION: dict[str, float] = {"temperature": 0.7, "top_p": 0.95, "min_p": 0.05}

PARALLEL: Final = 16
"""Requests that an engine works on at a time, unless the user says otherwise."""

PREFIX_BYTES: Final = 1 << 30
"""Bytes of a directory of prefixes, unless the user says otherwise."""
