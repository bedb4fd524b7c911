"""The command that installs packages where this program finds them, for sentences about missing ones."""

import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path


def pip_install(*requirements: str) -> str:
    """`pip install ...`, by the interpreter's path where another environment's pip would be found."""
    own = Path(sys.executable).with_name("pip")
    pip = "pip" if own == Path(shutil.which("pip") or "") else f"{shlex.quote(sys.executable)} -m pip"
    return f"{pip} install {shlex.join(requirements)}"


def extra_requirements(name: str) -> list[str]:
    """What an extra of this package adds, as its metadata says. The package is not on PyPI, so it cannot be
    installed by its own name."""
    found = (entry.partition(";") for entry in metadata.requires("rockledge") or [])
    mine = (f'extra == "{name}"', f"extra == '{name}'")
    return [requirement.strip() for requirement, _, marker in found if marker.strip() in mine]
