"""Commands run in this process, and toy models for them to work on."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small products of PyTorch lose by threads where tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Served:
    """A running `rockledge serve --json`: its process, the object it printed, the file of its stderr."""

    process: "subprocess.Popen[str]"
    ready: Any
    log: Path


@pytest.fixture
def serving(artifact: Path, tmp_path: Path) -> Callable[..., Any]:
    """`with serving("--parallel", "2") as served:` is a server over the toy artifact, or others."""
    toy = artifact

    @contextmanager
    def start(*more: str, artifact: Path = toy, beside: Sequence[Path] = ()) -> Iterator[Served]:
        log = tmp_path / "log"
        program = [sys.executable, "-m", "rockledge", "serve", str(artifact), *map(str, beside)]
        flags = ["--port", "0", "--threads", "1", "--json", *more]
        with (
            open(log, "wb") as err,
            subprocess.Popen([*program, *flags], stdout=subprocess.PIPE, stderr=err, text=True) as process,
        ):
            assert process.stdout is not None
            try:
                yield Served(process, json.loads(process.stdout.readline()), log)
            finally:
                process.kill()

    return start
