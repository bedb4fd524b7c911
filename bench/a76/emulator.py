"""Runs the engine on an emulated Cortex-A76 and counts its instructions, one thread.

Everything is built here: the plugin of count.c with the machine's compiler, the core for aarch64 with the
flags of a release and its names left in. The arm64 Python is the one of `make test-arm`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.a76.counts import Blocks, Mapped, Names, read_phases
from bench.models import UnavailableError, cache

HERE = Path(__file__).parent
TREE = HERE.parent.parent
BUILD = TREE / "build" / "a76"
LIBRARY = "librockledge.so"
TOOLS = {
    "cc": "gcc",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "aarch64-linux-gnu-nm": "binutils-aarch64-linux-gnu",
    "qemu-aarch64": "qemu-user",
}


@dataclass(frozen=True)
class Sizes:
    """Tokens: two prompts whose difference is prefill, a prompt and two answers for decode."""

    short: int = 113
    long: int = 303
    prompt: int = 5
    few: int = 8
    many: int = 24


@dataclass(frozen=True)
class Run:
    """Instructions of every phase of guest.py, and what is needed to name them."""

    phases: dict[int, Blocks]
    maps: tuple[Mapped, ...]
    names: dict[str, Names]


def count(artifact: Path, sizes: Sizes) -> Run:
    """Runs guest.py on `artifact`. Raises UnavailableError naming what is missing or what failed."""
    return counted("guest.py", artifact, sizes.short, sizes.long, sizes.prompt, sizes.few, sizes.many)


def counted(script: str, *arguments: object) -> Run:
    """Runs a script of this folder, which marks its phases. Raises UnavailableError as `count` does."""
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            raise UnavailableError(f"{tool} not found: install Debian's {package}")
    python = cache() / "arm" / "python"
    if not python.exists():
        raise UnavailableError(f"there is no arm64 Python in {python.parent}: tools/arm-sysroot.sh makes it")
    library = build()
    with tempfile.TemporaryDirectory() as folder:
        plugin, counts = Path(folder, "count.so"), Path(folder, "counts")
        _run(["cc", "-O2", "-shared", "-fPIC", HERE / "count.c", "-o", plugin])
        environment = {
            **os.environ,
            "ARM_PYTHONPATH": f"{TREE / 'src'}:{TREE}",
            "ROCKLEDGE_LIBRARY": str(library),
            "OPENBLAS_NUM_THREADS": "1",
            "QEMU_PLUGIN": f"{plugin},out={counts}",
        }
        printed = _run([python, HERE / script, *arguments], environment)
        with counts.open() as lines:
            phases = read_phases(lines)
    maps = tuple(Mapped(*place) for place in json.loads(printed))
    return Run(phases, maps, {LIBRARY: Names.of(_run(["aarch64-linux-gnu-nm", "-C", "-n", library]))})


def build() -> Path:
    """The core for aarch64 with the names of its functions."""
    programs = Path(sys.executable).parent
    options = ["-DCMAKE_TOOLCHAIN_FILE=tools/aarch64.cmake", "-DCMAKE_BUILD_TYPE=Release"]
    options += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={programs / 'ninja'}", "-DROCKLEDGE_SYMBOLS=ON"]
    _run([programs / "cmake", "-S", TREE, "-B", BUILD, *options, "--log-level=WARNING"])
    _run([programs / "cmake", "--build", BUILD])
    return BUILD / LIBRARY


def _run(command: list[object], environment: dict[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=TREE)
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(words)} failed:\n{(done.stderr or done.stdout)[-1500:]}")
    return done.stdout
