"""Builds the wheels of both packages for each processor into dist/ and refuses any whose library needs a
glibc newer than 2.28.

Usage, from the root of the repository: python tools/wheel.py [--out DIR] PROCESSOR... (x86_64 or aarch64).
A processor that nothing here can compile for is left out with a sentence, unless no other is asked for.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One that is shipped: its name in file names, the folder of its pyproject.toml, its native library."""

    name: str
    folder: str
    library: str


PACKAGES = (
    Package("rockledge", ".", "rockledge/librockledge.so"),
    Package("rockledge_npu_lab", "npu_lab", "rockledge_npu_lab/librockledge_virtual_npu.so"),
)
GLIBC = (2, 28)
# What the manylinux_2_28 policy promises on every machine, of the libraries a C++ core could want.
PROMISED = {
    "libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libgcc_s.so.1",
    "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1",
}  # fmt: skip
PREFIX = {"x86_64": "x86_64-linux-gnu-", "aarch64": "aarch64-linux-gnu-"}


def tool(name: str, processor: str) -> str | None:
    """The compiler or binutils program `name` for `processor`: the plain one at home, else the cross one;
    None where there is none."""
    return shutil.which(name if platform.machine() == processor else PREFIX[processor] + name)


def missing(processor: str) -> str | None:
    """Why the wheels of `processor` cannot be built here, and what to do; None when they can."""
    if tool("g++", processor) and tool("objdump", processor):
        return None
    package = "g++" if platform.machine() == processor else f"g++-{processor.replace('_', '-')}-linux-gnu"
    return (
        f"no {processor} wheel: its compiler is missing; install it (Debian, Ubuntu: sudo apt-get install "
        f"{package}) and run this again"
    )


def build(package: Package, processor: str, out: Path) -> Path:
    """Builds the wheel for one processor and returns its path; the tag is checked by `check`, not here."""
    tag = f"py3-none-manylinux_{GLIBC[0]}_{GLIBC[1]}_{processor}"
    environment = dict(os.environ)
    if platform.machine() != processor:
        environment["CMAKE_TOOLCHAIN_FILE"] = str(Path(__file__).resolve().with_name(f"{processor}.cmake"))
    # scikit-build-core looks for CMake and Ninja on the path; the environment's own come first.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    folder = Path("build/wheel", package.name, processor).absolute()
    command = [
        sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps",
        "--no-build-isolation", "-C", f"wheel.tags={tag}", "-C", f"build-dir={folder}",
        "-w", str(out), f"./{package.folder}",
    ]  # fmt: skip
    subprocess.run(command, env=environment, check=True)
    (wheel,) = out.glob(f"{package.name}-*-{tag}.whl")
    return wheel


def check(wheel: Path, processor: str, library: str) -> list[str]:
    """What keeps the wheel's library from loading wherever its tag promises; empty when nothing does."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".so"))
        if names != [library]:
            return [f"the wheel holds {names or 'no library'}, expected {library}"]
        dump = [tool("objdump", processor) or "objdump", "-p", "-T"]
        text = subprocess.run(
            [*dump, archive.extract(library, folder)], check=True, capture_output=True, text=True
        ).stdout
    wrong = [
        f"it needs {name}"
        for name in re.findall(r"^\s+NEEDED\s+(\S+)", text, re.MULTILINE)
        if name not in PROMISED
    ]
    for version, symbol in re.findall(r"\*UND\*\s.*\(?GLIBC_([\d.]+)\)?\s+(\S+)$", text, re.MULTILINE):
        if tuple(int(part) for part in version.split(".")[:2]) > GLIBC:
            wrong.append(f"it needs {symbol} of glibc {version}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("processors", nargs="+", choices=sorted(PREFIX), metavar="PROCESSOR")
    parser.add_argument("--out", type=Path, default=Path("dist"))
    arguments = parser.parse_args()
    reasons = {processor: missing(processor) for processor in arguments.processors}
    for processor in (processor for processor, reason in reasons.items() if reason is None):
        print(f"building the {processor} wheels", flush=True)
        for package in PACKAGES:
            for old in arguments.out.glob(f"{package.name}-*_{processor}.whl"):
                old.unlink()
            wheel = build(package, processor, arguments.out)
            wrong = check(wheel, processor, package.library)
            if wrong:
                wheel.unlink()
                print(f"{wheel.name} breaks its tag's promise: {'; '.join(wrong)}", file=sys.stderr)
                return 1
            print(f"{wheel} ({wheel.stat().st_size / 1e6:.2f} MB)", flush=True)
    for reason in filter(None, reasons.values()):
        print(reason, file=sys.stderr)
    return int(all(reasons.values()))


if __name__ == "__main__":
    raise SystemExit(main())
