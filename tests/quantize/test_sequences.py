"""Calibration text: what is read, how it is cut, and which mistakes are named."""

import json
from pathlib import Path

import numpy as np
import pytest

from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantize.sequences import calibration_for, calibration_sequences, read_calibration
from rockledge.synth import SHAPES, model_files

FILES = model_files(SHAPES["toy"])  # one token a byte
TOKENIZER = Tokenizer.from_files(FILES)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def test_sequences_begin_with_bos_and_repeat_nothing() -> None:
    documents = [chr(ord("a") + i) * 300 for i in range(3)]
    found = calibration_sequences(documents, TOKENIZER, bos=1, tokens=320, length=32, seed=0)
    assert found.shape == (10, 32)
    assert (found[:, 0] == 1).all()
    # Each document is drawn from evenly: three or four sequences of one letter each.
    first_letters, counts = np.unique(found[:, 1], return_counts=True)
    assert len(first_letters) == 3
    assert set(counts) == {3, 4}


def test_short_documents_are_joined() -> None:
    found = calibration_sequences(["abc", "defg", "hij"], TOKENIZER, bos=None, tokens=64, length=5, seed=0)
    assert TOKENIZER.decode(sorted(found.reshape(-1).tolist())) == "abcdefghij"


def test_the_seed_fixes_the_choice() -> None:
    documents = [LETTERS * 200]
    first, again, other = (
        calibration_sequences(documents, TOKENIZER, bos=None, tokens=256, length=64, seed=seed)
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert not (first == other).all()


def test_too_short_a_text_is_refused() -> None:
    with pytest.raises(UsageError, match="3 tokens"):
        calibration_sequences(["abc"], TOKENIZER, bos=None, tokens=64, length=16, seed=0)


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
    plain, conversation = read_calibration(path, ChatTemplate.from_files(FILES))
    assert plain == "plain"
    assert "user\nhi" in conversation


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"text": 1}', "Line 1"),
        (b'{"text": "a"}\n[1]', "Line 2"),
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
    found = calibration_sequences(documents, TOKENIZER, bos=None, tokens=960, length=32, seed=0)
    assert found.shape == (30, 32)


def test_sequences_of_a_conversation_file_begin_with_bos_too(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    entry = {"messages": [{"role": "user", "content": LETTERS * 10}]}
    path.write_text("\n".join([json.dumps(entry)] * 8))
    settings = json.loads(FILES["tokenizer_config.json"]) | {"add_bos_token": True}
    files = {**FILES, "tokenizer_config.json": json.dumps(settings).encode()}
    found = calibration_for(files, path, tokens=512, length=64, seed=0)
    bos = Tokenizer.from_files(files).bos
    assert bos is not None
    assert (found.sequences[:, 0] == bos).all()
    assert (found.held_out[:, 0] == bos).all()
