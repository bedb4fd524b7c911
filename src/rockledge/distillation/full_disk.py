"""A full disk: told early, and known by what each library says of it."""

import shutil
from pathlib import Path

from rockledge.errors import RockledgeError
from rockledge.units import show_size

_SIGNS = ("no space left", "disk quota", "file too large", "os error 28", "enospc")


def says_full(error: Exception) -> bool:
    """Whether an error is of a full disk; safetensors and torch have each their own for that."""
    return any(sign in str(error).lower() for sign in _SIGNS)


def check_output_room(target: Path, student: Path) -> None:
    """Raises RockledgeError where the disk of `target` has no room for weights as large as those of the
    `student` directory."""
    place = next(parent for parent in target.parents if parent.is_dir())
    needed = sum(file.stat().st_size for file in student.glob("*.safetensors"))
    free = shutil.disk_usage(place).free
    if free < needed:
        raise RockledgeError(
            f"the student takes {show_size(needed, enough=True)} of disk at {target}, but {show_size(free)} "
            "are free; free some, or name another disk by -o"
        )
