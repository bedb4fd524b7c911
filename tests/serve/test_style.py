"""Failures before a route have the shape of the API that the request is for."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.serve.safety.checks import Safety
from rockledge.serve.safety.key_file import KeyLimits, add_key
from rockledge.serve.safety.keys import Keys
from rockledge.serve.style import ANTHROPIC, OLLAMA, OPENAI, RESPONSES, Style, style_of

ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
}


@pytest.mark.parametrize(
    "path, style",
    [
        ("/v1/chat/completions", OPENAI),
        ("/nowhere", OPENAI),
        ("/", OPENAI),
        ("/v1/responses", RESPONSES),
        ("/v1/responses/resp_1", RESPONSES),
        ("/v1/messages", ANTHROPIC),
        ("/v1/messages/count_tokens", ANTHROPIC),
        ("/v1/messages_of_others", OPENAI),
        ("/api", OLLAMA),
        ("/api/chat", OLLAMA),
        ("/apis", OPENAI),
    ],
)
def test_a_style_belongs_to_all_below_an_address(path: str, style: Style) -> None:
    assert style_of(path) is style


def check_shape(path: str, answer: httpx.Response, status: int) -> None:
    """Whether a failure is as the API of `path` documents it."""
    assert answer.status_code == status
    body = answer.json()
    if path.startswith("/api/"):
        assert list(body) == ["error"]
        assert isinstance(body["error"], str)
    elif path.startswith("/v1/messages"):
        assert set(body) == {"type", "error", "request_id"}
        assert set(body["error"]) == {"type", "message"}
        assert (body["type"], body["error"]["type"]) == ("error", ANTHROPIC_TYPES[status])
    else:
        assert list(body) == ["error"]
        assert set(body["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"])
def test_refusals_have_the_shape_of_the_api(path: str, http: httpx.Client) -> None:
    check_shape(path, http.get(f"{path}/nowhere/at/all"), 404)
    check_shape(path, http.post(path, headers={"Host": "elsewhere.example"}), 403)
    check_shape(path, http.post(path, headers={"Origin": "https://elsewhere.example"}), 403)
    check_shape(path, http.post(path, content="{}", headers={"Content-Type": "text/plain"}), 415)


def test_without_a_key_too(serving: Callable[..., str], tmp_path: Path) -> None:
    add_key(tmp_path / "keys.json", "someone", KeyLimits())
    url = serving(ScriptedEngine(), safety=Safety(keys=Keys(tmp_path / "keys.json")))
    for path in ("/v1/responses", "/v1/messages", "/api/chat"):
        check_shape(path, httpx.post(f"{url}{path}", json={}), 401)


def test_the_document_says_how_failures_look(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    shapes = document["components"]["schemas"]
    for path, name in (
        ("/v1/chat/completions", "Error"),
        ("/v1/messages", "AnthropicError"),
        ("/api/chat", "OllamaError"),
    ):
        answers = document["paths"][path]["post"]["responses"]
        assert name in shapes
        assert answers["400"]["content"]["application/json"]["schema"]["$ref"].endswith(f"/{name}")
        streamed = "application/x-ndjson" if path.startswith("/api") else "text/event-stream"
        assert set(answers["200"]["content"]) == {"application/json", streamed}
