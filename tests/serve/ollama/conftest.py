"""Servers whose models speak as Qwen does, asked over Ollama's API."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
from tests.serve.dialects import TEMPLATES
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.model.chat import ChatTemplate
from rockledge.serve.details import Details

CONTEXT = 4096
DETAILS = Details(
    family="qwen3",
    parameters=596_049_920,
    bits_per_weight=4.25,
    bytes=335_000_000,
    modified=datetime(2026, 11, 30, 12, tzinfo=timezone.utc),
    digest="ab" * 32,
)


def template(name: str) -> ChatTemplate:
    return ChatTemplate(TEMPLATES[name], {"bos_token": "<s>", "eos_token": "</s>"})


@pytest.fixture(scope="module")
def qwen(start_server: Callable[..., str], shared: Any) -> Iterator[httpx.Client]:
    """A client of a server over the shared engine."""
    url = start_server(
        shared[0], chat=template("qwen"), context=CONTEXT, details=DETAILS, aliases=("Assist:4b", "org/voice")
    )
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    """The objects of a stream, the last of which alone is done."""
    assert response.headers["content-type"] == "application/x-ndjson"
    found = [json.loads(line) for line in response.text.splitlines()]
    assert [line["done"] for line in found] == [False] * (len(found) - 1) + [True]
    return found


def prompt(engine: ScriptedEngine) -> str:
    """The newest prompt as text."""
    return bytes(token for token in engine.requests[-1].prompt if token < 256).decode()
