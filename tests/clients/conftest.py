"""`rockledge serve` as a process, with the real small model, for all client libraries."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.runtime.test_embed import headless

from bench import models

MODEL = "small"
EMBEDDER = "embedder"
KEY = "any"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server, without `/v1`; it calls its model `MODEL` too."""
    log = tmp_path_factory.mktemp("server") / "log"
    with _serving(models.smollm2(), log, "--alias", MODEL, "--ctx", "2048") as url:
        yield url


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose model makes embeddings. It is a random one: what it makes of two texts
    that are alike is alike, and no client knows more."""
    folder = tmp_path_factory.mktemp("embedder")
    path = headless(folder / EMBEDDER, "rotated-tied")
    with _serving(path, folder / "log") as url:
        yield url


@contextmanager
def _serving(model: Path, log: Path, *flags: str) -> Iterator[str]:
    program = [sys.executable, "-m", "rockledge", "serve", str(model), "--port", "0", "--threads", "1"]
    command = [*program, "--json", *flags]
    with (
        open(log, "wb") as err,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            ready = process.stdout.readline()
            assert ready, log.read_text()
            yield json.loads(ready)["url"].removesuffix("/v1")
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()
