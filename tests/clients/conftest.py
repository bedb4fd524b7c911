"""`rockledge serve` as a process, with the real small model, for all client libraries."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bench import models

MODEL = "small"
KEY = "any"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server, without `/v1`; it calls its model `MODEL` too."""
    program = [sys.executable, "-m", "rockledge", "serve", str(models.smollm2()), "--alias", MODEL]
    flags = ["--port", "0", "--threads", "1", "--ctx", "2048", "--json"]
    log = tmp_path_factory.mktemp("server") / "log"
    with (
        open(log, "wb") as err,
        subprocess.Popen([*program, *flags], stdout=subprocess.PIPE, stderr=err, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            ready = process.stdout.readline()
            assert ready, log.read_text()
            yield json.loads(ready)["url"].removesuffix("/v1")
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()
