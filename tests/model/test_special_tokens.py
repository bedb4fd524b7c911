"""Special and added tokens: the same ones that transformers collects from the same directory."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.model.oracle import CASES, auto_tokenizer, small_files, written

from rockledge.errors import CheckpointError
from rockledge.model.special_tokens import declared_tokens, special_tokens
from rockledge.model.tokenizer import Tokenizer

TEXT = "a <|endoftext|> b<|im_end|> [PAD] <new> c<other>  d <|im_start|>x"
NEW = {"content": "<new>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
PLACES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "map": ({"bos_token": None}, {"special_tokens_map.json": {"bos_token": "<|endoftext|>"}}),
    "map of objects": (
        {"bos_token": None, "eos_token": None},
        {"special_tokens_map.json": {"bos_token": {**NEW, "content": "<|im_start|>"}, "eos_token": NEW}},
    ),
    "both places": (
        {"bos_token": "<|im_start|>"},
        {"special_tokens_map.json": {"bos_token": "<|endoftext|>", "pad_token": "[PAD]"}},
    ),
    "a map beside declared tokens": (
        {"bos_token": None, "added_tokens_decoder": {"300": {**NEW, "special": True}}},
        {"special_tokens_map.json": {"bos_token": "<|endoftext|>"}},
    ),
    "declared tokens": (
        {"added_tokens_decoder": {
            "300": {**NEW, "special": False},
            "301": {**NEW, "content": "<other>", "lstrip": False, "special": True},
            "298": {**NEW, "content": "<|im_start|>", "special": True},
        }},
        {},
    ),
    "added tokens": ({}, {"added_tokens.json": {"<other>": 301, "<new>": 300}}),
    "added tokens with names": (
        {"eos_token": "<new>"}, {"added_tokens.json": {"<other>": 301, "<new>": 300}},
    ),
    "undeclared": ({"pad_token": "[PAD]", "additional_special_tokens": ["<new>", "<other>"]}, {}),
    "further in the map": ({}, {"special_tokens_map.json": {"additional_special_tokens": ["<new>", "<other>"]}}),
    "nothing": ({"bos_token": None, "eos_token": None, "pad_token": None}, {}),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_tokens_are_those_of_transformers(place: str, tmp_path: Path) -> None:
    config, others = PLACES[place]
    directory = written(tmp_path / "m", config=config, others=others)
    theirs, files = auto_tokenizer(directory), small_files(directory)
    assert special_tokens(files) == theirs.special_tokens_map
    ours = Tokenizer.from_files(files)
    assert ours.encode(TEXT, bos=True) == theirs(TEXT)["input_ids"]
    assert ours.special_ids == {i for i, token in theirs.added_tokens_decoder.items() if token.special}


def test_the_case_with_bos_in_the_map() -> None:
    assert special_tokens(small_files(CASES / "f13_map")) == {
        "bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("special_tokens_map.json", "[]", "special_tokens_map.json is not a JSON object"),
        ("special_tokens_map.json", "{", "special_tokens_map.json is not readable JSON"),
        ("added_tokens.json", '{"<new>": "x"}', "added_tokens.json is not an object of ids"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}', "added_tokens_decoder in"),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}', "added_tokens_decoder in"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"3": {"special": true}}}', "added_tokens_dec"),
        ("tokenizer_config.json", "[" * 100_000, "tokenizer_config.json is not readable JSON"),
    ],
)
def test_damaged_files_are_named(name: str, content: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        declared_tokens({name: content.encode()})


def test_what_is_no_token_is_no_token() -> None:
    config = {"bos_token": 3, "eos_token": {"text": "x"}, "pad_token": None, "unk_token": ["<unk>"]}
    assert special_tokens({"tokenizer_config.json": json.dumps(config).encode()}) == {}
