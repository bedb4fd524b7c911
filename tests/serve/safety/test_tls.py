"""TLS: answers over it, files that are wrong, and connections that never shake hands."""

import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from rockledge.errors import UsageError
from rockledge.serve.limits import Limits
from rockledge.serve.safety.tls import server_context

MAKE = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("tls")
    certificate, key = place / "cert.pem", place / "key.pem"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = [*MAKE.split(), *names, "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_it_answers_over_tls_and_only_so(
    serving: Callable[..., str], engine: Any, files: tuple[Path, Path]
) -> None:
    url = serving(engine, tls=server_context(*files))
    trust = ssl.create_default_context(cafile=str(files[0]))
    with httpx.Client(base_url=url, verify=trust, timeout=20) as http:
        origin = {"Origin": url}
        answer = http.post("/v1/completions", json={"prompt": "Hi", "max_tokens": 5}, headers=origin)
        assert answer.json()["choices"][0]["text"] == "Hello"
        streamed = http.post("/v1/completions", json={"prompt": "Hi", "stream": True})
        assert streamed.text.endswith("[DONE]\n\n")
    with pytest.raises(httpx.HTTPError):
        httpx.get(url.replace("https", "http") + "/health")


def test_who_never_shakes_hands_holds_no_place(
    serving: Callable[..., str], engine: Any, files: tuple[Path, Path]
) -> None:
    url = serving(engine, tls=server_context(*files), limits=Limits(connections=2, header_s=3))
    port = int(url.rsplit(":", 1)[1])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    time.sleep(1.2)  # until they are old enough to make room
    trust = ssl.create_default_context(cafile=str(files[0]))
    assert httpx.get(f"{url}/health", verify=trust).status_code == 200
    for sock in silent:  # and their time is over soon
        sock.settimeout(10)
        with suppress(ConnectionResetError):
            assert sock.recv(10) == b""
        sock.close()


def test_wrong_files_are_named(tmp_path: Path, files: tuple[Path, Path]) -> None:
    certificate, key = files
    with pytest.raises(UsageError, match="No such file"):
        server_context(tmp_path / "none.pem", key)
    for wrong in ((key, certificate), (certificate, certificate), (Path(__file__), key)):
        with pytest.raises(UsageError, match="PEM"):
            server_context(*wrong)
    secret = tmp_path / "secret.pem"
    encrypt = ["openssl", "ec", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", str(secret)]
    subprocess.run(encrypt, check=True, capture_output=True)
    with pytest.raises(UsageError, match="without a password"):
        server_context(certificate, secret)
