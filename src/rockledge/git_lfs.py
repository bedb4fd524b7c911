"""Git LFS pointers: the few lines that stand in for a large file where `git lfs pull` was never run.

Their first line is fixed by https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
"""

from pathlib import Path

from rockledge.errors import RockledgeError
from rockledge.regular_file import open_regular

_FIRST_LINE = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path, error: type[RockledgeError]) -> None:
    """Raises `error` if `path` is such a pointer instead of the file it stands for."""
    try:
        with open_regular(path) as file:
            found = file.read(len(_FIRST_LINE)) == _FIRST_LINE
    except OSError:
        return  # whoever reads the file says why it cannot be read
    if found:
        raise error(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in {path.parent}")
