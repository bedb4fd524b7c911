"""The built-in calibration mix: complete, deterministic, diverse, and clear of the evaluation texts."""

import hashlib
from pathlib import Path

import rockledge.quantization
from rockledge.quantization.calibration.texts import SOURCES, default_calibration, default_conversations

FOLDER = Path(rockledge.quantization.__path__[0]) / "calibration_texts"
# Changing any text changes every artifact made with the default mix: change this on purpose only.
DIGEST = "a3ee0f53216ace4308a5187f38b99e4442d809605b53d7c4299290d7d0687ac5"


def test_every_shipped_file_has_a_source_and_a_licence() -> None:
    assert {source.file for source in SOURCES} == {path.name for path in FOLDER.iterdir()}
    assert {source.licence for source in SOURCES} == {"public domain", "Apache-2.0"}


def test_the_mix_is_fixed() -> None:
    digest = hashlib.sha256("\0".join(default_calibration()).encode()).hexdigest()
    assert digest == DIGEST


def test_size_and_balance() -> None:
    documents = default_calibration()
    assert len(documents) == len(SOURCES)
    assert 150_000 < sum(map(len, documents)) < 320_000
    assert max(map(len, documents)) < 0.2 * sum(map(len, documents))


def test_conversations_are_rendered_one_by_one() -> None:
    conversations = default_conversations()
    assert len(conversations) > 30
    for turns in conversations:
        roles = [m["role"] for m in turns if m["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(m["content"].strip() for m in turns)
    rendered = default_calibration(lambda turns: f"<{len(turns)}>{turns[-1]['content']}\n")
    assert rendered[:-1] == default_calibration()[:-1]
    assert rendered[-1].count("\n<2>") + rendered[-1].startswith("<2>") > 20
    assert conversations[0][-1]["content"] in rendered[-1]


def test_no_evaluation_text_and_no_foreign_furniture() -> None:
    text = "\n".join(default_calibration()).lower()
    for phrase in ("cheshire cat", "white rabbit", "debian administrator", "gutenberg", "\ufffd", "\r"):
        assert phrase not in text
