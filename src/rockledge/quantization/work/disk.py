"""Whether there is room on disk for a run, checked before it starts and not an hour later."""

import shutil
from pathlib import Path

from rockledge.errors import RockledgeError
from rockledge.units import show_size


def check_room(work: Path, work_bytes: int, out: Path, tensor_bytes: int) -> None:
    """Raises RockledgeError unless the disks of the work directory and of the artifact's parent have room for
    that many bytes. What a stopped run has left in `work` counts as room.
    """
    there = sum(file.stat().st_size for file in work.iterdir() if file.is_file())
    needed = {work: max(0, work_bytes - there), out: tensor_bytes}
    if work.stat().st_dev == out.stat().st_dev:
        needed = {work: sum(needed.values())}
    for folder, size in needed.items():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise RockledgeError(
                f"this run needs {show_size(size, enough=True)} of disk in {folder}, but {show_size(free)} "
                "are free; free some space there or name another disk with --work and --output"
            )
