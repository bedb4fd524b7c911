"""The data as sequences: what is learnt and what is held out share nothing; what cannot be used is said."""

import json
from pathlib import Path

import pytest

from rockledge.distillation.packing import IGNORED
from rockledge.distillation.training_text import TrainingText, training_text
from rockledge.errors import UsageError
from rockledge.model.tokenizer import Tokenizer
from rockledge.synth import model_files, shape_config

FILES = model_files(shape_config("toy"))
TOKENIZER = Tokenizer.from_files(FILES)


def made(
    data: Path, *, files: dict[str, bytes] = FILES, share: float = 0.2, apart: Path | None = None
) -> TrainingText:
    return training_text(files, 2, [data], held_out_file=apart, share=share, length=16)


def words(text: TrainingText, part: str) -> str:
    return TOKENIZER.decode(getattr(text, part).ids.reshape(-1).tolist())


def test_the_end_of_one_document_is_held_out(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("a" * 160 + "b" * 40)
    text = made(file)
    assert set(words(text, "train")) == {"a"}
    assert set(words(text, "held_out")) == {"b"}
    assert text.held_out.labels[0, 0] == IGNORED


def test_documents_that_are_held_out_are_not_learnt(tmp_path: Path) -> None:
    lines = [json.dumps({"text": letter * 40}) for letter in "abcdef"]
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    (tmp_path / "apart.jsonl").write_text("\n".join(lines[4:]))
    text = made(tmp_path / "all.jsonl", apart=tmp_path / "apart.jsonl")
    assert set(words(text, "train")) == set("abcd")
    assert set(words(text, "held_out")) == set("ef")
    assert "Of the documents 2 are left out: they are held out." in text.notes
    own = made(tmp_path / "all.jsonl")
    assert not set(words(own, "train")) & set(words(own, "held_out"))
    assert own.sha256 != text.sha256


def test_conversations_that_do_not_suit_are_left_out_and_counted(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q" * 20}, {"role": "assistant", "content": "a" * 20}]
    lines = [{"messages": turns}, {"messages": turns[:1]}, {"text": "t" * 40}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    text = made(tmp_path / "x.jsonl", share=0.0)
    assert "1 conversation left out; the first: line 2 of x.jsonl shows no answer" in text.notes[0]
    learnt = text.train.labels[text.train.labels != IGNORED].tolist()
    assert "q" not in TOKENIZER.decode(learnt)
    assert {"a", "t"} <= set(TOKENIZER.decode(learnt))


def test_a_model_without_a_template_refuses_conversations(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "x.jsonl").write_text(json.dumps({"messages": turns}))
    files = {name: data for name, data in FILES.items() if name != "chat_template.jinja"}
    with pytest.raises(UsageError, match=r"line 1 of x\.jsonl: the model has no chat template"):
        made(tmp_path / "x.jsonl", files=files)


def test_too_little_to_hold_out_is_said(tmp_path: Path) -> None:
    lines = [json.dumps({"text": letter * 8}) for letter in "abcdef"]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    with pytest.raises(UsageError, match="tokens are held out, but one sequence has 16"):
        made(tmp_path / "x.jsonl")
