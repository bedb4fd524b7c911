"""A toy artifact, and wheels built by the tool that releases build them with."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tools.wheel import PACKAGES

from rockledge.synth import synth_artifact

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random artifact of the smallest shape."""
    return synth_artifact("toy", tmp_path_factory.mktemp("toy") / "artifact", seed=3)


@pytest.fixture(scope="session")
def build_wheels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """Builds and checks the wheels for a processor ("x86_64", "aarch64"): the gateway's, the laboratory's."""

    def build(processor: str) -> list[Path]:
        out = tmp_path_factory.mktemp("dist")
        command = [sys.executable, "tools/wheel.py", "--out", str(out), processor]
        subprocess.run(command, cwd=ROOT, check=True)
        wheels = sorted(out.glob("*.whl"))
        assert [wheel.name.partition("-")[0] for wheel in wheels] == [package.name for package in PACKAGES]
        return wheels

    return build
