"""The console's routes: the page for everybody, data with a key only, and no way to other files."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.runtime.request import EngineStats
from rockledge.serve.console.files import ADDRESSES
from rockledge.serve.console.routes import add_console
from rockledge.serve.safety.checks import Safety
from rockledge.serve.safety.key_file import KeyLimits, add_key
from rockledge.serve.safety.keys import Keys

SHEET = {"name": "scripted", "aliases": []}
DATA = ("/console/state", "/console/models")


@pytest.fixture(scope="module")
def console(start_server: Callable[..., str]) -> Iterator[httpx.Client]:
    """A client of a server with a console."""
    with httpx.Client(base_url=start_server(ScriptedEngine(), sheets=[SHEET]), timeout=20) as client:
        yield client


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_file_comes_with_its_type_and_a_strict_policy(console: httpx.Client, address: str) -> None:
    answer = console.get(address)
    assert answer.status_code == 200
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert answer.headers["content-type"].split(";")[0] == kinds[Path(ADDRESSES[address]).suffix]
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert console.head(address).headers["content-length"] == answer.headers["content-length"]
    assert console.post(address, json={}).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/console",
        "/console/",
        "/console/page.html",
        "/console/routes.py",
        "/console/__init__.py",
        "/console/../app.py",
        "/console/%2e%2e/app.py",
        "/console/..%2fapp.py",
        "/console//etc/passwd",
        "/console/console.css/../../app.py",
        "/page.html",
    ],
)
def test_no_address_reads_another_file(console: httpx.Client, path: str) -> None:
    host, port = console.base_url.host, console.base_url.port

    async def raw() -> bytes:  # clients would tidy the path
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        found = await reader.read()
        writer.close()
        return found

    assert asyncio.run(raw()).startswith(b"HTTP/1.1 404 ")


def test_the_state_is_the_engine_s(serving: Callable[..., str], engine: ScriptedEngine) -> None:
    url = serving(engine, sheets=[SHEET])
    before = httpx.get(f"{url}/console/state").json()
    assert before["models"]["scripted"] == {
        **dict.fromkeys(("running", "waiting", "pages", "free_pages", "cold_pages", "preemptions"), 0),
        **dict.fromkeys(("prompt_tokens", "cached_tokens", "answer_tokens"), 0),
        "npu": "off",
    }
    assert isinstance(before["temperatures"], list)
    httpx.post(f"{url}/v1/completions", json={"prompt": "Hi", "max_tokens": 5})
    after = httpx.get(f"{url}/console/state").json()
    assert after["models"]["scripted"]["answer_tokens"] == 5
    assert after["seconds"] > before["seconds"]


def test_the_sheets_and_what_is_served(console: httpx.Client) -> None:
    assert console.get("/console/models").json() == {"models": [SHEET], "apis": ["openai", "ollama"]}


def test_an_api_that_is_served_too_is_said() -> None:
    app = FastAPI()

    async def standing() -> dict[str, EngineStats]:
        return {"a": EngineStats(running=2), "b": EngineStats(waiting=1)}

    add_console(app, [], standing)
    app.add_api_route("/api/chat", standing, methods=["POST"])

    async def ask() -> list[Any]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [(await client.get(path)).json() for path in DATA]

    state, models = asyncio.run(ask())
    assert models["apis"] == ["ollama"]
    assert (state["models"]["a"]["running"], state["models"]["b"]["waiting"]) == (2, 1)


def test_the_page_needs_no_key_and_its_data_do(
    serving: Callable[..., str], engine: ScriptedEngine, tmp_path: Path
) -> None:
    key = add_key(tmp_path / "keys.json", "home", KeyLimits())
    url = serving(engine, sheets=[SHEET], safety=Safety(keys=Keys(tmp_path / "keys.json")))
    with httpx.Client(base_url=url, timeout=20) as client:
        for address in ADDRESSES:
            assert client.get(address).status_code == 200
        for path in DATA:
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code == 200
        for path in ("/console/other", "/console/console.css/", "//console/state"):
            assert client.get(url + path).status_code == 401


@pytest.mark.parametrize("path", ["/", "/console/console.js", *DATA])
def test_names_and_origins_are_checked_as_everywhere(console: httpx.Client, path: str) -> None:
    assert console.get(path, headers={"Host": "evil.example"}).status_code == 403
    assert console.get(path, headers={"Origin": "http://evil.example"}).status_code == 403


def test_without_sheets_there_is_no_console(http: httpx.Client) -> None:
    for path in {*ADDRESSES, *DATA} - {"/"}:
        assert http.get(path).status_code == 404
    assert http.get("/").text == "Rockledge is running"  # Ollama's clients ask it
    assert http.head("/").status_code == 200


def test_the_console_is_not_part_of_the_api_s_document(console: httpx.Client) -> None:
    paths = console.get("/openapi.json").json()["paths"]
    assert "/v1/models" in paths
    assert not [path for path in paths if path == "/" or path.startswith("/console")]
