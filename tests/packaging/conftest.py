"""A toy artifact, and wheels built by the tool that releases build them with."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rockledge.synth import synth_artifact

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random artifact of the smallest shape."""
    return synth_artifact("toy", tmp_path_factory.mktemp("toy") / "artifact", seed=3)


@pytest.fixture(scope="session")
def build_wheel(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds and checks the wheel of a processor ("x86_64", "aarch64") and returns its path."""

    def build(processor: str) -> Path:
        out = tmp_path_factory.mktemp("dist")
        command = [sys.executable, "tools/wheel.py", "--out", str(out), processor]
        subprocess.run(command, cwd=ROOT, check=True)
        (wheel,) = out.glob("*.whl")
        return wheel

    return build
