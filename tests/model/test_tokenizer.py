"""Encoding and decoding: streams are exact, special tokens are signals, files in several spellings are
read."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.model.oracle import CASES, auto_tokenizer, small_files, written
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
    text = text.replace("\u2581", "").replace("<", "")  # "<s>" is a token that decoding leaves out
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


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SPACED], ids=["byte level", "metaspace"])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@example(text="\n")
@settings(max_examples=200, deadline=None)
def test_text_within_another_is_exactly_its_bytes(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode_within(text)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert not tokenizer.special_ids & set(ids)


def test_names_of_signals_within_a_text_are_text() -> None:
    for tokenizer, name in ((BYTE_LEVEL, CONTROLS[0]), (SPACED, "</s>")):
        assert tokenizer.id(name) in tokenizer.encode(f"a{name}b", bos=False)
        ids = tokenizer.encode_within(f"a{name}b")
        assert not tokenizer.special_ids & set(ids)
        assert b"".join(map(tokenizer.token_bytes, ids)) == f"a{name}b".encode()


def test_lone_surrogates_do_no_harm() -> None:
    assert BYTE_LEVEL.decode(BYTE_LEVEL.encode("a\ud800b", bos=False)) == "a?b"


def with_bos() -> tokenizers.Tokenizer:
    made = train_byte_level("smollm")
    made.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    return made


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize(("rules", "bos"), [(RULES, None), (with_bos(), 1)], ids=["without", "with"])
def test_texts_begin_as_the_post_processor_says(
    rules: tokenizers.Tokenizer, bos: int | None, asked: bool | None, tmp_path: Path
) -> None:
    # transformers 5 does not look at add_bos_token where there is a tokenizer.json.
    settings = {} if asked is None else {"add_bos_token": asked}
    config = {"bos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast", **settings}
    (tmp_path / "tokenizer.json").write_text(rules.to_str())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.bos == bos
    assert tokenizer.encode("fox", bos=True) == auto_tokenizer(tmp_path)("fox")["input_ids"]
    assert tokenizer.encode("fox", bos=True)[len(tokenizer.beginning) :] == tokenizer.encode("fox", bos=False)


def test_an_end_that_is_appended_is_not_put_in_front() -> None:
    tokenizer = Tokenizer.load(CASES / "f12_append")
    assert tokenizer.encode("Hi", bos=True) == [39, 72]
    assert tokenizer.bos is None


SPECIALS = st.lists(st.sampled_from(CONTROLS), max_size=3)


@given(front=SPECIALS, back=SPECIALS, nested=st.booleans(), text=st.sampled_from(["", "fox", "  a\n", "東"]))
@settings(max_examples=100, deadline=None)
def test_what_a_template_puts_in_front(front: list[str], back: list[str], nested: bool, text: str) -> None:
    rules = tokenizers.Tokenizer.from_str(RULES.to_str())
    template: Any = processors.TemplateProcessing(
        single=[*front, "$A", *back], special_tokens=[(token, CONTROLS.index(token)) for token in CONTROLS]
    )
    if nested:
        template = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    rules.post_processor = template
    ours = Tokenizer.from_files({"tokenizer.json": rules.to_str().encode()})
    assert [*ours.encode(text, bos=True), *map(CONTROLS.index, back)] == rules.encode(text).ids
    assert ours.encode_whole(text) == rules.encode(text).ids


@pytest.mark.parametrize("kind", [processors.BertProcessing, processors.RobertaProcessing])
def test_other_post_processors_put_one_in_front(kind: Any) -> None:
    rules = tokenizers.Tokenizer.from_str(RULES.to_str())
    rules.post_processor = kind(("<|im_end|>", 2), ("<|im_start|>", 1))
    ours = Tokenizer.from_files({"tokenizer.json": rules.to_str().encode()})
    assert [*ours.encode("fox", bos=True), 2] == ours.encode_whole("fox") == rules.encode("fox").ids


def rows(count: int) -> dict[str, bytes]:
    return {"tokenizer.json": RULES.to_str().encode(), "config.json": b'{"vocab_size": %d}' % count}


def test_ordinary_pieces_without_a_row_are_refused() -> None:
    size = RULES.get_vocab_size()
    assert Tokenizer.from_files(rows(size)).without_row == {}
    assert Tokenizer.from_files(rows(size + 50)).without_row == {}  # a padded embedding
    for files, given_rows in ((rows(size - 1), None), (rows(size), size - 1)):
        with pytest.raises(
            CheckpointError, match=f"id {size - 1}, but the model has rows for 0 to {size - 2}"
        ):
            Tokenizer.from_files(files, rows=given_rows)
    unigram = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)], unk_id=0))
    unigram.decoder = decoders.Metaspace()
    with pytest.raises(CheckpointError, match="'b' the id 2"):
        Tokenizer.from_files({"tokenizer.json": unigram.to_str().encode()}, rows=2)


@pytest.mark.parametrize("listed", [True, False], ids=["in the vocabulary too", "added only"])
def test_added_tokens_without_a_row_become_text(listed: bool) -> None:
    content = json.loads(RULES.to_str())
    size, names = len(content["model"]["vocab"]), ("<pad>", "<|mask|>")
    for i, name in enumerate(names, start=size):
        content["added_tokens"].append({**content["added_tokens"][0], "id": i, "content": name})
        if listed:
            content["model"]["vocab"][name] = i
    files = {"tokenizer.json": json.dumps(content).encode()}
    assert Tokenizer.from_files(files, rows=size + 2).encode("<pad>", bos=False) == [size]
    for count, without_row in ((size, names), (size + 1, names[1:])):
        tokenizer = Tokenizer.from_files(files, rows=count)
        assert set(tokenizer.without_row) == set(without_row)
        ids = tokenizer.encode("a <pad><|mask|> b", bos=False)
        assert max(ids) < count
        assert tokenizer.decode(ids, skip_special=False) == "a <pad><|mask|> b"


@given(st.text(max_size=20), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_no_text_makes_an_id_without_a_row(text: str, more: int) -> None:
    # Named by the configuration only: transformers gives such a token the next id.
    config = {"pad_token": "<pad>", "additional_special_tokens": ["<a>", "<b>"]}
    count = RULES.get_vocab_size() + more
    tokenizer = Tokenizer.from_files({**rows(count), "tokenizer_config.json": json.dumps(config).encode()})
    ids = tokenizer.encode(f"<pad>{text}<b> <a>", bos=False)
    assert all(0 <= i < count for i in ids)
    assert len(tokenizer.without_row) == max(0, 3 - more)


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


def test_a_decoder_with_a_regular_expression_is_refused(tmp_path: Path) -> None:
    steps = [{"type": "Replace", "pattern": {"Regex": "x+"}, "content": " "}, {"type": "ByteFallback"}]
    path = written(tmp_path, {"decoder": {"type": "Sequence", "decoders": steps}})
    with pytest.raises(CheckpointError, match="replaces by a regular expression"):
        Tokenizer.from_files(small_files(path))


@pytest.mark.parametrize("split", [True, False])
def test_special_tokens_are_split_if_the_files_say_so(split: bool, tmp_path: Path) -> None:
    path = written(tmp_path, config={"split_special_tokens": split})
    theirs = auto_tokenizer(path)
    named = theirs.convert_ids_to_tokens(theirs.all_special_ids)
    text = "a".join(["", *named, ""])
    ours = Tokenizer.from_files(small_files(path)).encode(text, bos=False)
    assert ours == theirs.encode(text, add_special_tokens=False)
    assert bool(set(ours) & set(theirs.all_special_ids)) is not split
