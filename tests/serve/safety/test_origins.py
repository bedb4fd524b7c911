"""Web pages: foreign ones are refused before anything runs, listed ones get what browsers ask for."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rockledge.errors import UsageError
from rockledge.serve.safety.checks import Safety
from rockledge.serve.safety.origins import Origins

ASKED = {"prompt": "Hi", "max_tokens": 2}
PAGE = "http://app.example:3000"
FOREIGN = [
    "http://evil.example",
    "null",
    "file://",
    "http://localhost:1",
    "http://localhost:1@127.0.0.1",
    "chrome-extension://abcdef",
    "http://127.0.0.1.evil.example",
    "not an origin",
    "http://127.0.0.1, http://evil.example",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_any_web_page_cannot_use_a_server_on_localhost(http: httpx.Client, engine: Any, origin: str) -> None:
    """Not even blindly: what a page sends without asking does not reach the engine."""
    for content_type in ("application/json", "text/plain", ""):
        headers = {"Origin": origin, "Content-Type": content_type}
        answer = http.post("/v1/completions", content=b'{"prompt": "Hi"}', headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    refused = http.options("/v1/completions", headers=asked)
    assert refused.status_code == 403
    assert http.get("/v1/models", headers={"Origin": origin}).status_code == 403
    assert "access-control-allow-origin" not in refused.headers
    assert not engine.requests


def test_two_origins_are_one_too_many(http: httpx.Client) -> None:
    own = str(http.base_url).rstrip("/")
    headers = [("Origin", own), ("Origin", "http://evil.example")]
    assert http.get("/v1/models", headers=headers).status_code == 403


def test_the_servers_own_pages_and_programs_without_an_origin_may(http: httpx.Client) -> None:
    own = str(http.base_url).rstrip("/")
    assert http.post("/v1/completions", json=ASKED, headers={"Origin": own}).status_code == 200
    assert http.post("/v1/completions", json=ASKED).status_code == 200


def test_a_listed_page_gets_what_its_browser_asks_for(serving: Callable[..., str], engine: Any) -> None:
    url = serving(engine, safety=Safety(origins=Origins.of([PAGE])))
    with httpx.Client(base_url=url, timeout=20) as http:
        asked = {
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, x-stainless-lang",
            "Access-Control-Request-Private-Network": "true",
        }
        allowed = http.options("/v1/completions", headers=asked)
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert allowed.headers["access-control-allow-headers"] == asked["Access-Control-Request-Headers"]
        assert allowed.headers["access-control-allow-private-network"] == "true"
        assert allowed.headers["vary"] == "Origin"
        for answer in (
            http.post("/v1/completions", json=ASKED, headers={"Origin": PAGE}),
            http.post("/v1/completions", json={"stream": True, **ASKED}, headers={"Origin": PAGE}),
        ):
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == PAGE
        # A page can read why it was refused.
        wrong = http.post("/v1/completions", json={"prompt": 1}, headers={"Origin": PAGE})
        assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (400, PAGE)
        assert http.get("/v1/models", headers={"Origin": "http://app.example"}).status_code == 403


def test_all_pages_may_where_the_list_says_so() -> None:
    assert Origins.of(["*"]).allows("null", "localhost")
    assert Origins.of(["null"]).allows("null", "localhost")
    assert Origins.of(["HTTPS://App.example:443"]).allows("https://app.example", "localhost")
    assert Origins().allows("https://board.example", "board.example:443")
    assert not Origins().allows("https://board.example", "board.example:80")


@pytest.mark.parametrize("origin", ["app.example", "http://app.example/", "http://", "", "http://a b"])
def test_what_is_not_an_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(UsageError, match="--allow-origin"):
        Origins.of([origin])


def test_preflights_do_not_smuggle_headers(serving: Callable[..., str], engine: Any) -> None:
    url = serving(engine, safety=Safety(origins=Origins.of(["*"])))
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x: y\tz",
    }
    assert "access-control-allow-headers" not in httpx.options(url, headers=asked).headers
