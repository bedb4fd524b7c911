"""Tokenizers out of GGUF: the ids are those of the original tokenizer, of SentencePiece's rule, of
llama.cpp."""

import dataclasses
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.oracle import CASES
from tests.model.vocabularies import (
    CORPUS,
    PUBLISHED,
    byte_level_metadata,
    sentencepiece_encode,
    sentencepiece_metadata,
    train_byte_level,
)

from rockledge.errors import CheckpointError
from rockledge.model.bos_eos import bos_and_eos
from rockledge.model.chat import ChatTemplate
from rockledge.model.config import ModelConfig
from rockledge.model.gguf_file import open_gguf
from rockledge.model.gguf_tokenizer import tokenizer_facts, tokenizer_files, tokenizer_notes
from rockledge.model.hf_config import config_from_hf
from rockledge.model.tokenizer import Tokenizer

CACHE = Path(os.environ.get("ROCKLEDGE_CACHE") or "~/.cache/rockledge").expanduser()


def config_of(metadata: dict[str, Any]) -> ModelConfig:
    plain = config_from_hf(
        {"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 8,
         "num_hidden_layers": 1, "num_attention_heads": 1,
         "vocab_size": len(metadata["tokenizer.ggml.tokens"])}
    )  # fmt: skip
    special = bos_and_eos([], tokenizer_facts(metadata), plain.vocab)
    return dataclasses.replace(plain, bos=special.bos, eos=special.eos)


def ends_of(metadata: dict[str, Any]) -> tuple[int | None, tuple[int, ...]]:
    config = config_of(metadata)
    return config.bos, config.eos


def files_of(metadata: dict[str, Any]) -> dict[str, bytes]:
    return tokenizer_files("x.gguf", metadata, config_of(metadata))


ORIGINALS = {pre: train_byte_level(pre) for pre in PUBLISHED}
CONVERTED = {
    pre: Tokenizer.from_files(files_of(byte_level_metadata(made, pre))) for pre, made in ORIGINALS.items()
}
# Text with what splitting rules care about: digits, contractions, spaces, line ends, scripts, control tokens.
TEXT = st.lists(
    st.text(max_size=8)
    | st.text(alphabet=" \n\r\t'sdlreTtvm019²٣.,!_é東🙂", max_size=12)
    | st.sampled_from([*CORPUS[0].split(), "<|im_start|>", "<|im_end|>", "e\u0301"]),
    max_size=8,
).map("".join)


@pytest.mark.parametrize("pre", PUBLISHED)
@given(text=TEXT)
@settings(max_examples=150, deadline=None)
def test_byte_level_ids_are_those_of_the_original(pre: str, text: str) -> None:
    # Qwen2's tokenizer composes first; the others keep text as it is.
    text = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
    ids = CONVERTED[pre].encode(text, bos=False)
    assert ids == ORIGINALS[pre].encode(text, add_special_tokens=False).ids
    assert CONVERTED[pre].decode(ids, skip_special=False) == text


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["12345"]), ("smollm", ["1", "2", "3", "4", "5"]), ("llama-bpe", ["123", "4", "5"]),
        ("qwen2", ["1", "2", "3", "4", "5"]),
        ("tekken", ["1", "2", "3", "4", "5"]), ("default", ["123", "4", "5"]),
    ],
)  # fmt: skip
def test_digits_are_split_as_each_kind_does(pre: str, pieces: list[str]) -> None:
    tokens = [*"12345", "12", "123", "1234", "12345"]
    metadata = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": ["1 2", "12 3", "123 4", "1234 5"],
    }  # fmt: skip
    tokenizer = Tokenizer.from_files(files_of(metadata))
    assert [tokens[i] for i in tokenizer.encode("12345", bos=False)] == pieces


SPM = sentencepiece_metadata()
SPM_TOKENIZER = Tokenizer.from_files(files_of(SPM))


@given(st.text(alphabet="thequickbrown  aing,äX東", max_size=40).filter(lambda text: "\u2581" not in text))
@settings(max_examples=300, deadline=None)
def test_sentencepiece_ids_follow_its_rule(text: str) -> None:
    ids = SPM_TOKENIZER.encode(text, bos=False)
    assert ids == sentencepiece_encode(text, SPM)
    assert SPM_TOKENIZER.decode(ids) == text


def test_sentencepiece_begins_with_bos_unless_told_otherwise() -> None:
    assert SPM_TOKENIZER.encode("the", bos=True)[0] == 1
    assert SPM_TOKENIZER.encode("the", bos=False)[0] != 1
    without = Tokenizer.from_files(files_of({**SPM, "tokenizer.ggml.add_bos_token": False}))
    assert without.encode("the", bos=True) == without.encode("the", bos=False)


def test_no_space_is_put_in_front_where_the_file_says_so() -> None:
    bare = Tokenizer.from_files(files_of({**SPM, "tokenizer.ggml.add_space_prefix": False}))
    ids = bare.encode(" the", bos=False)
    assert bare.token_bytes(ids[0]) == b" the"
    assert bare.decode(ids) == " the"
    assert bare.token_bytes(bare.encode("the", bos=False)[0]) == b"the"


@pytest.mark.parametrize(("pre", "begins"), [("llama-bpe", True), ("smollm", False), ("qwen2", False)])
def test_byte_level_models_begin_with_bos_by_their_kind(pre: str, begins: bool) -> None:
    metadata = byte_level_metadata(ORIGINALS[pre], pre)
    assert (Tokenizer.from_files(files_of(metadata)).encode("a", bos=True)[0] == 1) is begins
    told = Tokenizer.from_files(files_of({**metadata, "tokenizer.ggml.add_bos_token": not begins}))
    assert (told.encode("a", bos=True)[0] == 1) is not begins


@pytest.mark.parametrize("begins", [False, True])
def test_whole_texts_end_as_the_file_says(begins: bool) -> None:
    metadata = byte_level_metadata(ORIGINALS["qwen2"], "qwen2")
    settings = {"tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.add_bos_token": begins}
    tokenizer = Tokenizer.from_files(files_of({**metadata, **settings}))
    front, plain = [1] if begins else [], tokenizer.encode("the fox", bos=False)
    assert tokenizer.encode("the fox", bos=True) == [*front, *plain]
    assert tokenizer.encode_whole("the fox") == [*front, *plain, metadata["tokenizer.ggml.eos_token_id"]]


def test_every_ending_of_an_answer_is_found() -> None:
    metadata = byte_level_metadata(ORIGINALS["smollm"], "smollm")
    config = config_of(metadata)
    assert (config.bos, config.eos) == (1, (2, 0))  # <|im_end|> by its key, <|endoftext|> by its name
    assert config_of({**metadata, "tokenizer.ggml.eot_token_id": 5}).eos == (2, 5, 0)
    generation = json.loads(files_of(metadata)["generation_config.json"])
    assert generation == {"bos_token_id": 1, "eos_token_id": [2, 0]}


@pytest.mark.parametrize("absent", [0xFFFFFFFF, 600, -1, True, "1"])
def test_ids_past_the_last_token_mean_none(absent: object) -> None:
    metadata = byte_level_metadata(ORIGINALS["llama-bpe"], "llama-bpe")
    files = files_of(
        {**metadata, "tokenizer.ggml.bos_token_id": absent, "tokenizer.ggml.padding_token_id": absent}
    )
    assert json.loads(files["generation_config.json"])["bos_token_id"] is None
    assert "pad_token" not in json.loads(files["tokenizer_config.json"])
    assert Tokenizer.from_files(files).bos is None


def test_the_chat_template_becomes_a_file_that_knows_the_tokens() -> None:
    metadata = byte_level_metadata(ORIGINALS["smollm"], "smollm")
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    files = files_of({**metadata, "tokenizer.chat_template": template})
    assert files["chat_template.jinja"].decode() == template
    chat = ChatTemplate.from_files(files)
    assert chat is not None
    assert chat.render([{"role": "user", "content": "hi"}]) == "<|im_start|>hi<|im_end|>"
    assert "chat_template.jinja" not in files_of(metadata)


def test_templates_with_names_come_along() -> None:
    metadata = byte_level_metadata(ORIGINALS["smollm"], "smollm")
    named = {
        "tokenizer.chat_template": "plain",
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template.tool_use": "{{ tools | tojson }}{{ eos_token }}",
    }
    chat = ChatTemplate.from_files(files_of({**metadata, **named}))
    assert chat is not None
    assert [chat.render([]), chat.render([], tools=[1])] == ["plain", "[1]<|im_end|>"]


GOOD = byte_level_metadata(ORIGINALS["smollm"], "smollm")


@pytest.mark.parametrize("without", [None, ""])
def test_the_guess_where_words_are_not_told_is_that_of_llama_cpp_and_is_noted(without: str | None) -> None:
    metadata = {key: value for key, value in GOOD.items() if key != "tokenizer.ggml.pre"}
    metadata |= {} if without is None else {"tokenizer.ggml.pre": without}
    (note,) = tokenizer_notes(metadata)
    assert "tokenizer.ggml.pre is missing" in note
    assert 'the rule "default" was guessed, as llama.cpp does' in note
    told = {**metadata, "tokenizer.ggml.pre": "default"}
    assert tokenizer_notes(told) == ()
    guessed, default = (Tokenizer.from_files(files_of(m)) for m in (metadata, told))
    for text in CORPUS[:3]:
        assert guessed.encode(text, bos=True) == default.encode(text, bos=True)


def test_the_case_without_pre() -> None:
    assert tokenizer_notes(open_gguf(CASES / "f8_pre.gguf").metadata) == ()
    (note,) = tokenizer_notes(open_gguf(CASES / "f8_nopre.gguf").metadata)
    assert "tokenizer.ggml.pre is missing" in note


def test_ids_a_sentencepiece_file_does_not_name_are_those_of_llama_cpp() -> None:
    bare = {key: value for key, value in SPM.items() if not key.endswith("token_id")}
    assert ends_of(bare) == ends_of(SPM) == (1, (2,))
    assert files_of(bare) == files_of(SPM)
    assert tokenizer_notes(SPM) == ()
    assert [note.split(" was ")[0] for note in tokenizer_notes(bare)] == [
        "The key tokenizer.ggml.bos_token_id is missing: 1 ('<s>')",
        "The key tokenizer.ggml.eos_token_id is missing: 2 ('</s>')",
        "The key tokenizer.ggml.unknown_token_id is missing: 0 ('<unk>')",
    ]
    # A byte-level file names what it has; 11, which llama.cpp takes there, is an ordinary piece.
    silent = {key: value for key, value in GOOD.items() if not key.endswith("token_id")}
    assert ends_of(silent)[0] is None
    assert tokenizer_notes(silent) == ()


@pytest.mark.parametrize(("given_id", "noted"), [(600, True), (-2, True), (0xFFFFFFFF, False), (-1, False)])
def test_an_id_outside_of_the_vocabulary_is_noted(given_id: int, noted: bool) -> None:
    found = tokenizer_notes({**GOOD, "tokenizer.ggml.eos_token_id": given_id})
    assert [f"is {given_id}, which is not an id of this vocabulary" in note for note in found] == [
        True
    ] * noted


def test_missing_token_types_are_noted() -> None:
    untyped = {key: value for key, value in GOOD.items() if key != "tokenizer.ggml.token_type"}
    (note,) = tokenizer_notes(untyped)
    assert "tokenizer.ggml.token_type is missing" in note
    # What has a role is a signal still.
    assert Tokenizer.from_files(files_of(untyped)).special_ids == {1, 2}


def test_more_tokens_than_rows_are_refused_and_fewer_are_not() -> None:
    rows = len(GOOD["tokenizer.ggml.tokens"])
    with pytest.raises(
        CheckpointError, match=rf"the tokenizer has {rows} tokens, but the embedding {rows - 1} rows"
    ):
        tokenizer_files("x.gguf", GOOD, dataclasses.replace(config_of(GOOD), vocab=rows - 1))
    padded = tokenizer_files("x.gguf", GOOD, dataclasses.replace(config_of(GOOD), vocab=rows + 64))
    assert padded["tokenizer.json"] == files_of(GOOD)["tokenizer.json"]


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({**GOOD, "tokenizer.ggml.tokens": []}, "holds no tokenizer"),
        ({**GOOD, "tokenizer.ggml.model": "bert"}, "'bert' is not supported; supported are gpt2 and llama"),
        ({**GOOD, "tokenizer.ggml.pre": "viking"}, "'viking' is not known; known are codeshell, "),
        ({**GOOD, "tokenizer.ggml.token_type": [1]}, "do not fit their types"),
        ({**GOOD, "tokenizer.ggml.merges": []}, "no merges"),
        ({**GOOD, "tokenizer.ggml.merges": ["ab"]}, "'ab' is not two pieces"),
        ({**GOOD, "tokenizer.ggml.merges": ["zq zq"]}, "'zq' and 'zq' is not in the vocabulary"),
        ({**SPM, "tokenizer.ggml.scores": [0.0]}, "no score for each"),
    ],
)
def test_damaged_tokenizers_are_refused(metadata: dict[str, Any], said: str) -> None:
    config = config_of(GOOD if metadata["tokenizer.ggml.model"] != "llama" else SPM)
    with pytest.raises(CheckpointError, match=said):
        tokenizer_files("x.gguf", metadata, config)


# llama.cpp's own vocabularies with texts and their ids, where `make llama-cpp` has put the source tree.
VOCABULARIES = sorted((CACHE / "llama.cpp/source/models").glob("ggml-vocab-*.gguf"))
BIG = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("command-r", "llama-bpe", "mpt", "phi-3", "qwen2")
]


@pytest.mark.skipif(not VOCABULARIES, reason="llama.cpp is not in the cache (make llama-cpp)")
@pytest.mark.parametrize("name", ["llama-spm", "starcoder", "gpt-2", "refact", *BIG])
def test_ids_are_those_of_llama_cpp(name: str) -> None:
    path = CACHE / f"llama.cpp/source/models/ggml-vocab-{name}.gguf"
    tokenizer = Tokenizer.from_files(files_of(open_gguf(path).metadata))
    texts = Path(f"{path}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    expected = [[int(i) for i in line.split()] for line in Path(f"{path}.out").read_text().split("\n")]
    assert len(texts) > 40
    for text, ids in zip(texts, expected, strict=True):
        assert tokenizer.encode(text, bos=False) == ids
        assert tokenizer.decode(ids) == text
