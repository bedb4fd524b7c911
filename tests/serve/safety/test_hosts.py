"""Names of the server: DNS rebinding, in all its spellings."""

import socket

import httpx
import pytest

from rockledge.errors import UsageError
from rockledge.serve.safety.hosts import Hosts

ASKED = {"prompt": "Hi", "max_tokens": 2}
HERE = ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1", "127.0.0.1:80", "[::1]:8000", "127.9.9.9"]
FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.1@evil.example",
    "evil.example#127.0.0.1",
    "localhost, evil.example",
    "evil.example:localhost",
    "[evil.example]",
    "::1",
    "",
    "192.168.1.5",
    "0.0.0.0",
]


@pytest.mark.parametrize("host", HERE)
def test_loopback_by_any_of_its_names_is_this_machine(host: str) -> None:
    assert Hosts.of("127.0.0.1").allows(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_not(host: str) -> None:
    assert not Hosts.of("127.0.0.1").allows(host)


def test_beyond_loopback_addresses_and_the_machines_name_count() -> None:
    own = socket.gethostname()
    for bound in ("0.0.0.0", "192.168.1.5", "::"):
        hosts = Hosts.of(bound)
        for name in ("192.168.1.5:8000", "[fe80::1]", "localhost", own, own.upper()):
            assert hosts.allows(name)
        assert not hosts.allows("evil.example")
        assert not hosts.allows("192.168.1.5.nip.io")


def test_names_are_added_by_an_option() -> None:
    hosts = Hosts.of("127.0.0.1", ["board.example", "10.0.0.7"])
    assert hosts.allows("Board.Example:443")
    assert hosts.allows("10.0.0.7")
    assert not hosts.allows("www.board.example")
    assert Hosts.of("127.0.0.1", ["*"]).allows("evil.example")


@pytest.mark.parametrize("name", ["http://board", "board:80", "", "a b", "board/v1"])
def test_what_is_not_a_name_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(UsageError, match="--allow-host"):
        Hosts.of("127.0.0.1", [name])


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models", "/health", "/metrics", "/nothing"])
def test_a_rebound_name_gets_nothing(http: httpx.Client, engine: object, path: str) -> None:
    method = "POST" if path == "/v1/completions" else "GET"
    answer = http.request(method, path, json=ASKED, headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_host")
    assert "--allow-host" in answer.json()["error"]["message"]


def test_a_name_in_the_address_or_in_another_header_counts_for_nothing(http: httpx.Client) -> None:
    headers = {"X-Forwarded-Host": "localhost", "Forwarded": "host=localhost", "Host": "evil.example"}
    assert http.get("/v1/models", headers=headers).status_code == 403
    for head in ("GET http://localhost/v1/models HTTP/1.1\r\nHost: evil.example",
                 "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
                 "GET /v1/models HTTP/1.1"):  # fmt: skip
        with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as sock:
            sock.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
            assert sock.recv(100).split()[1] in (b"400", b"403", b"404")
