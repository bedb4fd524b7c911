"""Request smuggling: a body whose end can be read in two ways is no body."""

import socket
from typing import Any

import httpx

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


def answers(http: httpx.Client, sent: bytes) -> bytes:
    with socket.create_connection((http.base_url.host, http.base_url.port or 0), 10) as sock:
        sock.sendall(sent)
        found = b""
        while data := sock.recv(65536):
            found += data
    return found


def test_two_lengths_are_refused_and_nothing_after_them_is_read(http: httpx.Client, engine: Any) -> None:
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    found = answers(http, head + SMUGGLED)
    assert found.startswith(b"HTTP/1.1 400")
    assert found.count(b"HTTP/1.1 ") == 1
    assert not engine.requests


def test_two_content_lengths_and_odd_encodings_are_refused(http: httpx.Client) -> None:
    for lengths in (
        b"Content-Length: 2\r\nContent-Length: 9",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: xchunked",
        b"Content-Length : 5",
        b"Content-Length: +5",
        b"X: y\r\n Content-Length: 5\x00",
    ):
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + lengths + b"\r\n\r\n{}"
        found = answers(http, head + SMUGGLED)
        assert found.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501"))
        assert found.count(b"HTTP/1.1 ") == 1
