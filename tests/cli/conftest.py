"""Commands run in this process, and toy models for them to work on."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rockledge.cli.main import main
from rockledge.synth import synth_artifact, synth_checkpoint


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout; more or less than one fails."""
        return json.loads(self.out)


Command = Callable[..., Outcome]


@pytest.fixture
def rockledge(capsys: pytest.CaptureFixture[str]) -> Command:
    """`rockledge("inspect", path)` runs the command."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random toy artifact."""
    return synth_artifact("toy", tmp_path_factory.mktemp("models") / "toy", seed=3)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random toy checkpoint (Hugging Face directory)."""
    return synth_checkpoint("toy", tmp_path_factory.mktemp("models") / "toy-checkpoint", seed=3)
