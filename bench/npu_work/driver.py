"""Builds npu_work.cpp over the core, for this machine or an emulated Cortex-A76, and reads what it prints."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.a76.counts import read_phases
from bench.a76.emulator import HERE as PLUGIN
from bench.a76.emulator import TOOLS, TREE
from bench.models import UnavailableError

HERE = Path(__file__).parent
ARM_LIBRARIES = "/usr/aarch64-linux-gnu"


@dataclass(frozen=True)
class Found:
    """One kind of work: how many elements it was (bytes written for memory and unpacking, floats for the
    rest), and least nanoseconds or instructions for all of them."""

    elements: int
    spent: int

    @property
    def each(self) -> float:
        """Of one element."""
        return self.spent / self.elements


def times(threads: int, turns: int, mebibytes: int) -> dict[str, Found]:
    """Least nanoseconds of every kind on this machine, each once a turn. Raises UnavailableError."""
    program = _built("npu_work")
    return parse(_run([program, "times", threads, turns, mebibytes]))


def instructions(mebibytes: int) -> dict[str, Found]:
    """Instructions of every kind on an emulated Cortex-A76. Raises UnavailableError: what is missing."""
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            raise UnavailableError(f"{tool} not found: install Debian's {package}")
    program = _built("npu_work_a76", f"-DCMAKE_TOOLCHAIN_FILE={TREE / 'tools' / 'aarch64.cmake'}")
    with tempfile.TemporaryDirectory() as folder:
        plugin, counts = Path(folder, "count.so"), Path(folder, "counts")
        _run(["cc", "-O2", "-shared", "-fPIC", PLUGIN / "count.c", "-o", plugin])
        emulator = [
            "qemu-aarch64",
            "-cpu",
            "cortex-a76",
            "-L",
            ARM_LIBRARIES,
            "-plugin",
            f"{plugin},out={counts}",
        ]
        printed = parse(_run([*emulator, program, "count", mebibytes]))
        with counts.open() as lines:
            phases = read_phases(lines)
    return {kind: Found(one.elements, phases[one.spent].total()) for kind, one in printed.items()}


def parse(printed: str) -> dict[str, Found]:
    """Kinds by name, in the driver's order."""
    rows = (line.split("\t") for line in printed.splitlines())
    return {name: Found(int(elements), int(spent)) for name, elements, spent in rows}


def rates(found: Mapping[str, Found]) -> dict[str, float]:
    """Elements a nanosecond, which is GB/s where elements are bytes."""
    return {kind: round(1 / one.each, 2) for kind, one in found.items()}


def _built(name: str, *options: str) -> Path:
    programs = Path(sys.executable).parent
    build = TREE / "build" / name
    ninja = f"-DCMAKE_MAKE_PROGRAM={programs / 'ninja'}"
    configured = ["-G", "Ninja", ninja, "-DCMAKE_BUILD_TYPE=Release", "--log-level=WARNING"]
    _run([programs / "cmake", "-S", HERE, "-B", build, *options, *configured])
    _run([programs / "cmake", "--build", build, "--target", "npu_work"])
    return build / "npu_work"


def _run(command: list[object]) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, cwd=TREE)
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(words)} failed:\n{(done.stderr or done.stdout)[-1500:]}")
    return done.stdout
