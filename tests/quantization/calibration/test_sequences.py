"""Calibration text: what is read, how it is cut, and which mistakes are named."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tests.model.oracle import CASES, small_files
from tokenizers import decoders, models, processors

from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantization.calibration.sequences import (
    Calibration,
    calibration_for,
    calibration_sequences,
    read_calibration,
)
from rockledge.quantization.calibration.texts import default_calibration
from rockledge.synth import SHAPES, model_files

FILES = model_files(SHAPES["toy"])  # one token a byte
TOKENIZER = Tokenizer.from_files(FILES)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def test_sequences_begin_with_bos_and_repeat_nothing() -> None:
    documents = [chr(ord("a") + i) * 300 for i in range(3)]
    found = calibration_sequences(documents, TOKENIZER, beginning=(1,), tokens=320, length=32, seed=0)
    assert found.shape == (10, 32)
    assert (found[:, 0] == 1).all()
    # Each document is drawn from evenly: three or four sequences of one letter each.
    first_letters, counts = np.unique(found[:, 1], return_counts=True)
    assert len(first_letters) == 3
    assert set(counts) == {3, 4}


def test_short_documents_are_joined() -> None:
    found = calibration_sequences(["abc", "defg", "hij"], TOKENIZER, tokens=64, length=5, seed=0)
    assert TOKENIZER.decode(sorted(found.reshape(-1).tolist())) == "abcdefghij"


def test_the_seed_fixes_the_choice() -> None:
    documents = [LETTERS * 200]
    first, again, other = (
        calibration_sequences(documents, TOKENIZER, tokens=256, length=64, seed=seed) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert not (first == other).all()


def test_too_short_a_text_is_refused() -> None:
    with pytest.raises(UsageError, match="3 tokens"):
        calibration_sequences(["abc"], TOKENIZER, tokens=64, length=16, seed=0)


def test_sequences_are_kept_back_for_measuring(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("".join(f"{i:07d} " for i in range(400)))
    found = calibration_for(FILES, path, tokens=1024, length=64, seed=0)
    assert found.held_out.shape == (4, 64)
    assert found.sequences.shape == (16, 64)
    kept = {tuple(sequence) for sequence in found.held_out.tolist()}
    assert not kept & {tuple(sequence) for sequence in found.sequences.tolist()}


def test_one_sequence_is_not_enough(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("x" * 100)
    with pytest.raises(UsageError, match="longer text"):
        calibration_for(FILES, path, tokens=1024, length=64, seed=0)


def test_json_lines_hold_text_or_conversations(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    lines = [{"text": "plain"}, {"messages": [{"role": "user", "content": "hi"}]}]
    path.write_text("\n\n".join(json.dumps(line) for line in lines))
    (plain, conversation), notes = read_calibration(path, ChatTemplate.from_files(FILES))
    assert notes == []
    assert plain == "plain"
    assert "user\nhi" in conversation


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"text": 1}', "line 1"),
        (b'{"text": "a"}\n[1]', "line 2"),
        (b"{", "not JSON"),
        (b"\xff", "UTF-8"),
    ],
)
def test_mistakes_are_named(content: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=named):
        read_calibration(path, None)


def test_too_short_a_text_says_how_much_is_needed_and_goes_on_by_force(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("".join(f"{i:07d} " for i in range(80)))  # 640 bytes: ten sequences
    with pytest.raises(UsageError, match=r"makes 640 tokens, but 1280 are needed \(1024 .*256 .*--force"):
        calibration_for(FILES, path, tokens=1024, length=64, seed=0)
    found = calibration_for(FILES, path, tokens=1024, length=64, seed=0, force=True)
    assert found.held_out.shape == (4, 64)
    assert found.sequences.shape == (6, 64)
    assert "1280 are needed" in found.notes[0]
    path.write_text("".join(f"{i:07d} " for i in range(160)))
    assert calibration_for(FILES, path, tokens=1024, length=64, seed=0).notes == ()


def test_long_documents_give_more_where_others_are_short() -> None:
    documents = ["a" * 40, "b" * 40, "c" * 3000]
    found = calibration_sequences(documents, TOKENIZER, tokens=960, length=32, seed=0)
    assert found.shape == (30, 32)


def begun(front: list[int]) -> dict[str, bytes]:
    """The toy's files with a post-processor that puts tokens in front."""
    rules = tokenizers.Tokenizer.from_str(FILES["tokenizer.json"].decode())
    names = {f"t{i}": i for i in front}
    rules.post_processor = processors.TemplateProcessing(
        single=[*names, "$A"], special_tokens=list(names.items())
    )
    return {**FILES, "tokenizer.json": rules.to_str().encode()}


@pytest.mark.parametrize("front", [[1], [1, 2]])
def test_sequences_of_a_conversation_file_begin_as_texts_of_the_model_do(
    front: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    entry = {"messages": [{"role": "user", "content": LETTERS * 10}]}
    path.write_text("\n".join([json.dumps(entry)] * 8))
    found = calibration_for(begun(front), path, tokens=512, length=64, seed=0)
    for sequences in (found.sequences, found.held_out):
        assert (sequences[:, : len(front)] == front).all()
        assert not np.isin(sequences[:, len(front) :], front[:1]).all(axis=1).any()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_context_of_a_few_tokens_is_filled(length: int) -> None:
    found = calibration_for(begun([1, 2]), None, tokens=60, length=length, seed=0)
    assert found.held_out.shape == (4, length)
    assert len(found.sequences) == 60 // length


def mistral(path: Path | None, tokens: int = 1024, force: bool = False) -> Calibration:
    files = small_files(CASES / "f1_mistral")
    return calibration_for(files, path, tokens=tokens, length=64, seed=0, force=force)


def test_built_in_conversations_are_fitted_to_a_template_that_refuses_system_messages() -> None:
    found = mistral(None)
    assert found.sequences.shape == (16, 64)
    (note,) = found.notes
    assert note.startswith("Built-in conversations 7, 8: the chat template refuses the system message")


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('never') }}", "{% if %}", "", "{{ missing.attribute }}", "{{ 1 / 0 }}"]
)
def test_the_built_in_text_goes_on_without_a_template_that_takes_nothing(template: str) -> None:
    found = calibration_for(
        {**FILES, "chat_template.jinja": template.encode()}, None, tokens=1024, length=64, seed=0
    )
    assert found.sequences.shape == (16, 64)
    assert all(note.startswith("Built-in conversations 1, 2, 3, ") for note in found.notes)
    assert found.notes
    assert found.sha256 == hashlib.sha256("\0".join(default_calibration()).encode()).hexdigest()


def test_a_line_that_the_template_refuses_is_folded_or_left_out_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    lines = (CASES / "f1_system.jsonl").read_text().rstrip("\n").split("\n")
    odd = [{"messages": [{"role": "tool", "content": "42"}]}, {"text": LETTERS * 40}]
    path.write_text("\n".join([*lines, "", *map(json.dumps, odd)]))
    found = mistral(path, tokens=512)
    folded, left_out = found.notes
    assert folded.startswith(
        "chats.jsonl: line 2: the chat template refuses the system message, so it was put"
    )
    assert left_out.startswith(
        "chats.jsonl: line 4 left out of the calibration text: the model's chat template"
    )
    assert left_out.endswith("Conversation roles must alternate user/assistant/user/assistant/.")
    documents, _ = read_calibration(path, ChatTemplate.from_files(small_files(CASES / "f1_mistral")))
    assert documents[1] == "<|endoftext|>[INST] s\n\nx [/INST]"
    assert len(documents) == 3


def test_a_file_of_refused_lines_says_which_and_why(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"messages": [{"role": "tool", "content": "42"}]}\n')
    with pytest.raises(
        UsageError, match=r"holds no text .*another one \(t.jsonl: line 1 left out .*alternate"
    ):
        mistral(path)
    with pytest.raises(UsageError, match=r"the calibration text has 39 tokens.*line 2: the chat"):
        mistral(CASES / "f1_system.jsonl")


def letters_only(letters: str) -> dict[str, bytes]:
    """A tokenizer of a few letters, without bytes and without <unk>: what it does not know it drops."""
    made = tokenizers.Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    made.decoder = decoders.Fuse()
    return {"tokenizer.json": made.to_str().encode()}


def test_the_built_in_text_suits_a_tokenizer_of_four_letters() -> None:
    found = calibration_for(letters_only("ACGT"), None, tokens=1024, length=64, seed=0)
    assert found.sequences.shape == (16, 64)
    assert set(np.unique(found.sequences)) == {0, 1, 2, 3}
    short = calibration_for(letters_only("ACGT"), None, tokens=100_000, length=64, seed=0)
    assert short.held_out.shape == (4, 64)
    assert len(short.sequences) > 16
    assert "but 100224 are needed" in short.notes[0]


def test_where_the_tokenizer_knows_nothing_of_the_built_in_text_tokens_are_random() -> None:
    found = calibration_for(letters_only("\u0f40\u0f41\u0f42\u0f43"), None, tokens=1024, length=64, seed=0)
    assert found.sequences.shape == (16, 64)
    assert found.held_out.shape == (4, 64)
    assert len(np.unique(found.sequences)) == 4
    assert found.notes[0].startswith("This tokenizer makes only 0 tokens of the built-in calibration text")


def test_separators_inside_of_json_and_a_byte_order_mark_are_no_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + '{"text": "a\u2028b\u0085c"}\r\n{"text": "d"}\n'.encode())
    assert read_calibration(path, None) == (["a\u2028b\u0085c", "d"], [])


@pytest.mark.parametrize(
    "messages", [[1], ["user"], [{"content": "x"}], [{"role": 3, "content": "x"}], [None]]
)
def test_messages_that_are_none_are_named_by_their_line(messages: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n' + json.dumps({"messages": messages}))
    with pytest.raises(UsageError, match=r'line 2 of .*: "messages" has an entry'):
        read_calibration(path, ChatTemplate.from_files(FILES))
