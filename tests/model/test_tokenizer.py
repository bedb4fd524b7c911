"""Encoding and decoding: streams are exact, special tokens are signals, files in several spellings are
read."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.vocabularies import CONTROLS, CORPUS, train_byte_level
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from rockledge.errors import CheckpointError
from rockledge.model.tokenizer import StreamDecoder, Tokenizer

RULES = train_byte_level("smollm")
BYTE_LEVEL = Tokenizer.from_files({"tokenizer.json": RULES.to_str().encode()})


def metaspace_rules(scheme: str = "always") -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Sequence(
        [decoders.Metaspace(prepend_scheme=scheme), decoders.ByteFallback(), decoders.Fuse()]
    )
    controls = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=500, special_tokens=controls, show_progress=False)
    )
    # Bytes are pieces, not special tokens: rebuilt without the mark that the trainer puts on them.
    text = json.loads(made.to_str())
    text["added_tokens"] = text["added_tokens"][:3]
    return tokenizers.Tokenizer.from_str(json.dumps(text))


SPACED = Tokenizer.from_files({"tokenizer.json": metaspace_rules().to_str().encode()})
IDS = st.lists(st.integers(0, RULES.get_vocab_size() - 1), max_size=40)


@given(IDS)
@settings(max_examples=300, deadline=None)
def test_any_ids_decode_as_the_tokenizers_package_does(ids: list[int]) -> None:
    assert BYTE_LEVEL.decode(ids) == RULES.decode(ids, skip_special_tokens=True)
    assert BYTE_LEVEL.decode(ids, skip_special=False) == RULES.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SPACED], ids=["byte-level", "sentencepiece"])
@given(ids=IDS)
@settings(max_examples=150, deadline=None)
def test_a_stream_gives_the_text_of_all_its_tokens(tokenizer: Tokenizer, ids: list[int]) -> None:
    stream = StreamDecoder(tokenizer, start=True)
    assert "".join([*map(stream.push, ids), stream.flush()]) == tokenizer.decode(ids)


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_stream_never_shows_half_a_character(text: str) -> None:
    stream, shown = BYTE_LEVEL.stream(), ""
    for token in BYTE_LEVEL.encode(text, bos=False):
        shown += stream.push(token)
        assert text.startswith(shown)
    assert shown == text
    assert stream.flush() == ""


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_metaspace_texts_survive(text: str) -> None:
    text = text.replace("\u2581", "")
    # The scheme puts a space in front only where there is none, and decoding takes one away: of leading ones
    # the first is lost, in the originals too.
    assert SPACED.decode(SPACED.encode(text, bos=False)) == text.removeprefix(" ")


def test_an_unfinished_character_is_flushed_as_a_mark() -> None:
    first, *_ = BYTE_LEVEL.encode("\U0001f9ff", bos=False)
    stream = BYTE_LEVEL.stream()
    assert stream.push(first) == ""
    assert stream.flush() == "\ufffd"


def test_a_stream_that_continues_a_text_keeps_its_space() -> None:
    word = SPACED.encode("brown", bos=False)
    assert "".join(map(SPACED.stream().push, word)) == " brown"
    assert SPACED.decode(word) == "brown"


def test_special_tokens_are_recognised_in_text_and_left_out_of_it() -> None:
    ids = BYTE_LEVEL.encode("<|im_start|>a<|im_end|>", bos=False)
    assert [ids[0], ids[-1]] == [CONTROLS.index("<|im_start|>"), CONTROLS.index("<|im_end|>")]
    assert BYTE_LEVEL.special_ids == {0, 1, 2}
    assert BYTE_LEVEL.decode(ids) == "a"
    assert BYTE_LEVEL.decode(ids, skip_special=False) == "<|im_start|>a<|im_end|>"


def test_the_bytes_of_tokens() -> None:
    assert BYTE_LEVEL.token_bytes(1) == b"<|im_start|>"
    assert b"".join(map(BYTE_LEVEL.token_bytes, BYTE_LEVEL.encode(" é\n", bos=False))) == " é\n".encode()
    assert SPACED.token_bytes(3 + 0xE4) == b"\xe4"
    for outside in (-1, BYTE_LEVEL.size, 1 << 40):
        assert BYTE_LEVEL.token_bytes(outside) == b""
    assert BYTE_LEVEL.id("<|im_end|>") == 2
    assert BYTE_LEVEL.id("no such token") is None


def test_lone_surrogates_do_no_harm() -> None:
    assert BYTE_LEVEL.decode(BYTE_LEVEL.encode("a\ud800b", bos=False)) == "a?b"


def with_bos() -> tokenizers.Tokenizer:
    made = train_byte_level("smollm")
    made.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    return made


@pytest.mark.parametrize(
    ("rules", "config", "bos"),
    [
        (RULES, {}, None),
        (with_bos(), {}, 1),
        (with_bos(), {"add_bos_token": True, "bos_token": "<|im_start|>"}, 1),
        (with_bos(), {"add_bos_token": False, "bos_token": "<|im_start|>"}, None),
        (RULES, {"add_bos_token": True, "bos_token": "<|endoftext|>"}, 0),
        (RULES, {"add_bos_token": True, "bos_token": {"content": "<|im_end|>", "lstrip": False}}, 2),
        (RULES, {"add_bos_token": True, "bos_token": None}, None),
    ],
)
def test_what_texts_begin_with(rules: tokenizers.Tokenizer, config: dict[str, Any], bos: int | None) -> None:
    files = {"tokenizer.json": rules.to_str().encode(), "tokenizer_config.json": json.dumps(config).encode()}
    tokenizer = Tokenizer.from_files(files)
    plain = tokenizer.encode("fox", bos=False)
    assert tokenizer.bos == bos
    assert tokenizer.encode("fox", bos=True) == ([] if bos is None else [bos]) + plain


def test_truncation_and_padding_of_the_file_do_not_apply() -> None:
    made = train_byte_level("smollm")
    made.enable_truncation(2)
    made.enable_padding(length=9)
    tokenizer = Tokenizer.from_files({"tokenizer.json": made.to_str().encode()})
    assert tokenizer.encode(CORPUS[0], bos=False) == RULES.encode(CORPUS[0]).ids


def test_a_directory_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(RULES.to_str())
    assert Tokenizer.load(tmp_path).encode("fox", bos=True) == BYTE_LEVEL.encode("fox", bos=True)


def test_sentencepiece_as_published_for_llama_2_is_read() -> None:
    made = metaspace_rules()
    made.pre_tokenizer = None
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = Tokenizer.from_files({"tokenizer.json": made.to_str().encode()})
    ids = tokenizer.encode(CORPUS[1], bos=False)
    assert tokenizer.decode(ids) == made.decode(ids) == CORPUS[1]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no tokenizer.json"),
        ({"tokenizer.json": b"{"}, "cannot be used"),
        ({"tokenizer.json": b"\xff"}, "cannot be used"),
        ({"tokenizer.json": b"[1]"}, "cannot be used"),
        ({"tokenizer.json": RULES.to_str().encode(), "tokenizer_config.json": b"{"}, "tokenizer_config.json"),
        ({"tokenizer.json": RULES.to_str().encode(), "tokenizer_config.json": b"[]"}, "not a JSON object"),
    ],
)
def test_missing_and_damaged_files_are_refused(files: dict[str, bytes], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        Tokenizer.from_files(files)


def test_an_unknown_decoder_is_named() -> None:
    made = train_byte_level("smollm")
    made.decoder = decoders.WordPiece()
    with pytest.raises(CheckpointError, match="unsupported decoder WordPiece"):
        Tokenizer.from_files({"tokenizer.json": made.to_str().encode()})
