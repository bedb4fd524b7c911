"""`/infill` as the editors' plugins of llama.cpp use it, over a scripted engine."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.serve.conftest import scripted_model
from tests.serve.scripted_engine import BOS, VOCAB, ScriptedEngine, byte_tokenizer

QWEN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>")
PRE, SUF, MID, REPO, FILE = range(VOCAB, VOCAB + 5)
CONTEXT = 128


@pytest.fixture(scope="module")
def server(start_server: Callable[..., str]) -> Iterator[tuple[ScriptedEngine, httpx.Client]]:
    engine = ScriptedEngine()
    model = replace(scripted_model(context=CONTEXT), tokenizer=byte_tokenizer(*QWEN), vocab=VOCAB + 5)
    with httpx.Client(base_url=start_server(engine, model=model), timeout=20) as client:
        yield engine, client


def ask(server: Any, script: str = "Hello", **body: Any) -> httpx.Response:
    server[0].reset()
    server[0].script = script
    return server[1].post("/infill", json={"input_prefix": "ab\n", "input_suffix": "\nyz", **body})


# What llama.vscode sends (src/llama-server.ts).
VSCODE = {
    "id_slot": 0,
    "n_cmpl": 3,
    "top_k": 40,
    "top_p": 0.99,
    "stream": False,
    "samplers": ["top_k", "top_p", "infill"],
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 1000,
}


def test_what_the_editor_sends(server: Any) -> None:
    extra = [{"text": "one\n", "filename": "a.py"}, {"text": "two\n", "filename": "b.py"}]
    answer = ask(server, prompt="  c", input_extra=extra, n_predict=9, **VSCODE).json()
    assert (answer["content"], answer["stop"], answer["stop_type"]) == ("Hello", True, "eos")
    (request,) = server[0].requests
    assert request.prompt == (
        *(BOS, REPO, *b"myproject\n", FILE, *b"a.py\none\n", FILE, *b"b.py\ntwo\n", FILE, *b"filename\n"),
        *(PRE, *b"ab\n  c", SUF, *b"\nyz", MID),
    )
    assert (request.max_tokens, request.sampling.top_k, request.sampling.top_p) == (9, 40, 0.99)
    assert set(request.sampling.stop_ids) == {PRE, SUF, MID, REPO, FILE}
    assert answer["tokens_evaluated"] == len(request.prompt)
    assert answer["tokens_predicted"] == 5


def test_other_files_give_way_to_the_text_around(server: Any) -> None:
    extra = [{"text": "x" * 500}, {"text": "y" * 20 + "\n"}]
    assert ask(server, input_extra=extra, n_predict=9).status_code == 200
    (request,) = server[0].requests
    assert len(request.prompt) == CONTEXT - 9
    assert bytes(i for i in request.prompt if i < 256).endswith(b"y\nfilename\nab\n\nyz")
    assert request.prompt[0] == BOS
    long = ask(server, input_prefix="x" * CONTEXT)
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_prompt_that_is_only_read(server: Any) -> None:
    """Editors warm the cache so while nothing is typed."""
    answer = ask(server, n_predict=0).json()
    assert (answer["content"], server[0].requests[0].max_tokens) == ("", 1)


@pytest.mark.parametrize(
    ("script", "indent", "content"),
    [
        ("a\n    b\n  c\n", 4, "a\n    b\n"),
        ("a\n\n    b", 4, "a\n"),
        ("a\n    b\n    ", 4, "a\n    b\n    "),
        ("a\n\tb\nc", 1, "a\n\tb\n"),
        ("a\nb", 0, "a\nb"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_a_line_that_is_indented_less(
    server: Any, script: str, indent: int, content: str, stream: bool
) -> None:
    answer = ask(server, script, n_indent=indent, stream=stream)
    if not stream:
        assert answer.json()["content"] == content
        return
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert "".join(chunk["content"] for chunk in chunks) == content
    assert [chunk["stop"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_why_it_ended(server: Any) -> None:
    assert ask(server, n_predict=2).json()["stop_type"] == "limit"
    assert "n_predict" in ask(server, n_predict=-2).json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input_prefix": None}, "input_prefix"),
        ({"input_suffix": 1}, "input_suffix"),
        ({"input_extra": [{"filename": "a"}]}, "input_extra"),
        ({"input_extra": "a"}, "input_extra"),
        ({"lora": [{"id": 0}]}, "lora"),
    ],
)
def test_wrong_fields_are_named(server: Any, body: Any, param: str) -> None:
    answer = ask(server, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_other_models_refuse(http: httpx.Client) -> None:
    error = http.post("/infill", json={"input_prefix": "a", "input_suffix": "b"}).json()["error"]
    assert "'scripted' has no tokens for filling in the middle" in error["message"]
