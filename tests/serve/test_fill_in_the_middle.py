"""Prompts for filling in the middle: against transformers, and through `/v1/completions`."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tests.model.vocabularies import sentencepiece_encode, sentencepiece_metadata, train_byte_level
from tests.serve.conftest import CONTEXT, scripted_model
from tests.serve.scripted_engine import BOS, EOS, VOCAB, ScriptedEngine, byte_tokenizer

from rockledge.model.gguf_tokenizer import tokenizer_files
from rockledge.model.tokenizer import Tokenizer
from rockledge.serve.fill_in_the_middle import FORMS, Filling
from rockledge.serve.residency import room

QWEN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|file_sep|>")
PRE, SUF, MID, PAD, SEP = range(VOCAB, VOCAB + 5)
CODE = ("def main(argv):\n    return ", "\n\nprint(main([]))  # comment\n")


@pytest.mark.parametrize("form", [form for form in FORMS if form.middle and "▁<" not in form.prefix])
@pytest.mark.parametrize("texts", [CODE, ("", "x"), (" a", " b"), ("x\n", "\r\n\ty")])
def test_prompts_are_what_transformers_reads(form: Any, texts: tuple[str, str], tmp_path: Path) -> None:
    rules = train_byte_level("qwen2")
    rules.add_special_tokens([form.prefix, form.suffix, form.middle])
    whole = f"{form.prefix}{texts[0]}{form.suffix}{texts[1]}{form.middle}"
    expected = transformers.PreTrainedTokenizerFast(tokenizer_object=rules)(whole).input_ids
    filling = Filling.of(Tokenizer.from_files({"tokenizer.json": rules.to_str().encode()}))
    assert filling is not None
    assert list(filling.prompt(*texts)) == expected
    assert list(filling.prompt(*texts, control_tokens=True)) == expected


SPACED = {
    ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"): lambda ids, ahead, behind: [
        *(1, ids[0]),
        *ahead,
        ids[1],
        *behind,
        ids[2],
    ],
    ("[PREFIX]", "[SUFFIX]"): lambda ids, ahead, behind: [*(1, ids[1]), *behind, ids[0], *ahead],
}


@pytest.mark.parametrize("names", SPACED)
@given(before=st.text("the quick\n", max_size=20), after=st.text("the quick\n", min_size=1, max_size=20))
def test_sentencepiece_puts_a_space_before_the_first_text_only(
    names: tuple[str, ...], before: str, after: str
) -> None:
    """As `infilling_prompt_tokens` of meta-llama/codellama and `encode_fim` of mistral-common have it: what
    comes after is encoded behind another character, which is taken away again. Codestral has that first."""
    metadata = sentencepiece_metadata()
    size = len(metadata["tokenizer.ggml.tokens"])
    for key, values in (("tokens", names), ("token_type", [3] * len(names)), ("scores", [0.0] * len(names))):
        metadata[f"tokenizer.ggml.{key}"] += values
    ids = range(size, size + len(names))
    config: Any = type("Config", (), {"bos": 1, "eos": (2,), "vocab": ids.stop, "context": 64})
    filling = Filling.of(Tokenizer.from_files(tokenizer_files("x", metadata, config)))
    assert filling is not None
    smile = len(sentencepiece_encode("☺", metadata))
    behind = sentencepiece_encode("☺" + after, metadata)[smile:]
    ahead = sentencepiece_encode(before, metadata)
    assert list(filling.prompt(before, after)) == SPACED[names](ids, ahead, behind)
    assert filling.ends == tuple(ids)


def test_other_vocabularies_have_no_form() -> None:
    assert Filling.of(byte_tokenizer()) is None
    assert Filling.of(byte_tokenizer("<|fim_prefix|>", "<|fim_suffix|>")) is None


@pytest.fixture(scope="module")
def filling_server(start_server: Callable[..., str]) -> Iterator[tuple[ScriptedEngine, httpx.Client]]:
    engine = ScriptedEngine()
    model = replace(scripted_model(), tokenizer=byte_tokenizer(*QWEN), vocab=VOCAB + 5)
    with httpx.Client(base_url=start_server(engine, model=model), timeout=20) as client:
        yield engine, client


def ask(server: tuple[ScriptedEngine, httpx.Client], **body: Any) -> httpx.Response:
    server[0].reset()
    return server[1].post("/v1/completions", json={"prompt": "ab", "suffix": "yz", **body})


def test_a_suffix_makes_such_a_prompt(filling_server: Any) -> None:
    answer = ask(filling_server, max_tokens=5).json()
    assert answer["choices"][0]["text"] == "Hello"
    (request,) = filling_server[0].requests
    assert request.prompt == (BOS, PRE, *b"ab", SUF, *b"yz", MID)
    assert set(request.sampling.stop_ids) == {PRE, SUF, MID, PAD, SEP}
    assert answer["usage"]["prompt_tokens"] == 8


def test_names_of_control_tokens_in_the_texts_are_text(filling_server: Any) -> None:
    ask(filling_server, prompt="<|fim_middle|>", suffix="</s>")
    (request,) = filling_server[0].requests
    assert request.prompt == (BOS, PRE, *b"<|fim_middle|>", SUF, *b"</s>", MID)


def test_what_goes_with_a_suffix(filling_server: Any) -> None:
    ask(filling_server, prompt=["a", "b"], stop_token_ids=[9])
    assert [request.prompt[2] for request in filling_server[0].requests] == [*b"ab"]
    assert 9 in filling_server[0].requests[0].sampling.stop_ids
    ask(filling_server, prompt=[7, EOS])
    assert filling_server[0].requests[0].prompt == (BOS, PRE, 7, EOS, SUF, *b"yz", MID)
    ask(filling_server, ignore_eos=True)
    assert filling_server[0].requests[0].sampling.stop_ids == ()
    ask(filling_server, suffix="")
    assert filling_server[0].requests[0].prompt == (BOS, *b"ab")
    assert filling_server[0].requests[0].sampling.stop_ids == ()


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"echo": True}, "echo", "with 'suffix'"),
        ({"suffix": 1}, "suffix", "a string"),
        ({"suffix": "x" * CONTEXT}, "prompt", "maximum context length"),
        ({"prompt": "x" * (CONTEXT - 6)}, "prompt", "maximum context length"),
        ({"prompt": [VOCAB + 5]}, "prompt", "not in the vocabulary"),
    ],
)
def test_what_does_not_fit_is_refused(body: Any, param: str, said: str, filling_server: Any) -> None:
    answer = ask(filling_server, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert said in answer.json()["error"]["message"]
    assert filling_server[0].requests == []


def test_a_suffix_is_not_read_again_without_end(filling_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_TOKENS", 40)
    answer = ask(filling_server, prompt=["a", "b"], suffix="y" * 21)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "suffix")
    assert "has 21 tokens and would be read in 2 prompts, 42 in all" in answer.json()["error"]["message"]
    assert filling_server[0].requests == []
    assert ask(filling_server, prompt=["a"], suffix="y" * 21).status_code == 200


def test_models_without_the_tokens_refuse_a_suffix_by_name(http: httpx.Client) -> None:
    error = http.post("/v1/completions", json={"prompt": "a", "suffix": "b"}).json()["error"]
    assert (error["param"], error["code"]) == ("suffix", "unsupported_parameter")
    assert "'scripted' has no tokens for filling in the middle" in error["message"]


def test_ollamas_generate_fills_in_too(filling_server: Any, http: httpx.Client) -> None:
    engine, client = filling_server
    engine.reset()
    wanted = {"model": "scripted", "prompt": "ab", "suffix": "yz", "stream": False}
    answer = client.post("/api/generate", json={**wanted, "options": {"num_predict": 5}}).json()
    assert (answer["response"], answer["prompt_eval_count"]) == ("Hello", 8)
    assert "context" not in answer
    (request,) = engine.requests
    assert request.prompt == (BOS, PRE, *b"ab", SUF, *b"yz", MID)
    assert set(request.sampling.stop_ids) == {PRE, SUF, MID, PAD, SEP}
    refused = client.post("/api/generate", json={**wanted, "system": "x"})
    assert (refused.status_code, "'system' must be left out" in refused.json()["error"]) == (400, True)
    without = http.post("/api/generate", json=wanted)
    assert (without.status_code, "filling in the middle" in without.json()["error"]) == (400, True)
