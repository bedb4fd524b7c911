"""`rockledge serve` as a process, with the real small model, for all client libraries."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.runtime.test_embed import headless

from bench import models

MODEL = "small"
EMBEDDER = "embedder"
KEY = "any"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server, without `/v1`. It has two models, as home automation and chat pages want
    it: `MODEL`, and `EMBEDDER`, a random one that makes embeddings. Its embeddings are good for as much as a
    client can see: they are alike where the texts are."""
    folder = tmp_path_factory.mktemp("server")
    writer, log = models.smollm2(), folder / "log"
    embedder = headless(folder / EMBEDDER, "rotated-tied")
    program = [sys.executable, "-m", "rockledge", "serve", str(writer), str(embedder)]
    flags = ["--alias", f"{MODEL}={writer.stem}", "--ctx", "2048", "--port", "0", "--threads", "1", "--json"]
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
