"""BOS and the ends of a turn are found wherever a checkpoint gives them."""

import json
from pathlib import Path

import pytest
from tests.model.opened_cases import CASES, changed, refused

from rockledge.model.bos_eos import bos_and_eos
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.gguf_tokenizer import tokenizer_facts as gguf_facts
from rockledge.model.hf_tokens import tokenizer_facts as hf_facts


def token(case: str, name: str) -> int:
    tokenizer = json.loads((CASES / case / "tokenizer.json").read_text())
    return next(int(t["id"]) for t in tokenizer["added_tokens"] if t["content"] == name)


@pytest.mark.parametrize("case", ["f2_eos", "f2_eos.gguf"])
def test_both_readers_find_every_end_of_a_turn(case: str) -> None:
    ends = [token("f2_eos", name) for name in ("<|endoftext|>", "<|im_end|>")]
    assert open_checkpoint(CASES / case).config.eos == tuple(ends)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", {"eos_token": "b"}),
        ("tokenizer_config.json", {"eos_token": {"content": "b", "special": True}}),
        ("special_tokens_map.json", {"eos_token": "b"}),
        ("special_tokens_map.json", {"eos_token": {"content": "b", "lstrip": False}}),
        ("generation_config.json", {"eos_token_id": [7, 8]}),
        ("generation_config.json", {"eos_token_id": 7}),
    ],
)
def test_an_end_of_a_turn_is_found_in_every_file(file: str, content: object, tmp_path: Path) -> None:
    path = changed("f2_eos", tmp_path)
    ids = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
    (path / file).write_text(json.dumps(content))
    found = open_checkpoint(path).config.eos
    assert set(found) > {7} if file == "generation_config.json" else ids["b"] in found
    assert {token("f2_eos", name) for name in ("<|endoftext|>", "<|im_end|>")} < set(found)


def test_bos_is_named_by_the_tokenizers_files_where_no_id_is_given(tmp_path: Path) -> None:
    path = changed("f2_eos", tmp_path)
    assert open_checkpoint(path).config.bos is None
    (path / "special_tokens_map.json").write_text('{"bos_token": "<|im_start|>"}')
    assert open_checkpoint(path).config.bos == token("f2_eos", "<|im_start|>")


def test_a_name_that_the_tokenizer_lacks_is_refused(tmp_path: Path) -> None:
    path = changed("f2_eos", tmp_path)
    (path / "special_tokens_map.json").write_text('{"eos_token": "<nope>"}')
    refused(path, "eos_token '<nope>' the id 300, but the model has rows for 0 to 299 only")


NAMES = ["<pad>", "<eos>", "<end_of_turn>", "</s>", "a"]
CONTROL, USER_DEFINED, NORMAL = 3, 4, 1  # llama.cpp's token types


@pytest.mark.parametrize(("special", "ends"), [(False, (2,)), (True, (2, 3))])
def test_an_html_tag_ends_no_answer(special: bool, ends: tuple[int, ...]) -> None:
    # Gemma's vocabulary has the tags of HTML as added tokens that are not special, </s> among them.
    added = [
        {"content": name, "id": i, "special": special or name != "</s>"} for i, name in enumerate(NAMES[:4])
    ]
    stored = {"added_tokens": added, "model": {"vocab": {"a": 4}}}
    facts = hf_facts({"tokenizer.json": json.dumps(stored).encode()})
    assert bos_and_eos([], facts, 5).eos == ends
    kinds = [CONTROL, CONTROL, CONTROL, CONTROL if special else USER_DEFINED, NORMAL]
    metadata = {"tokenizer.ggml.tokens": NAMES, "tokenizer.ggml.token_type": kinds}
    assert bos_and_eos([], gguf_facts(metadata), 5).eos == ends


def test_a_signal_that_a_file_calls_text_still_ends_an_answer() -> None:
    added = [{"content": "<|im_end|>", "id": 1, "special": False}]
    facts = hf_facts({"tokenizer.json": json.dumps({"added_tokens": added}).encode()})
    assert bos_and_eos([], facts, 5).eos == (1,)
