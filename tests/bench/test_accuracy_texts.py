"""Evaluation and calibration: enough text, the same tokens for every engine, and nothing shared."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import accuracy_texts, models
from bench.accuracy_texts import WINDOW, calibration, evaluation, shared_span
from rockledge.eval.text import read_text
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantization.calibration.texts import default_calibration
from rockledge.synth import synth_checkpoint


@pytest.mark.slow
def test_calibration_and_evaluation_share_no_span_of_fifty_characters() -> None:
    """Fifty tokens are at least fifty characters, so this holds for every tokenizer. Runs of spaces count as
    one: Alice's figure poem is indented."""

    def plain(text: str) -> list[int]:
        return [ord(character) for character in re.sub(r"\s+", " ", text)]

    calibrated = plain("\n\n".join(default_calibration()))
    for source in (models.alice, models.handbook):
        assert shared_span(plain(read_text(source())), calibrated) is None


def test_a_shared_span_is_found_wherever_it_is() -> None:
    span = list(range(100, 150))
    assert shared_span([1, 2, *span, 3], [*span, 9]) == tuple(span)
    assert shared_span([1, 2, *span, 3], [5, 6, 7, *span]) == tuple(span)
    assert shared_span([1, 2, *span[:-1], 3], [*span, 9]) is None
    assert shared_span(span[:20], span[:20]) is None


@given(st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), max_size=30), st.integers(1, 6))
def test_spans_by_brute_force(first: list[int], second: list[int], length: int) -> None:
    def runs(tokens: list[int]) -> set[tuple[int, ...]]:
        return {tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)}

    found = shared_span(first, second, length)
    common = runs(first) & runs(second)
    assert (found in common) if common else found is None


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A toy model's small files; texts and cache are this test's own."""
    monkeypatch.setenv("ROCKLEDGE_CACHE", str(tmp_path / "cache"))
    for name in ("alice", "handbook"):
        path = tmp_path / name
        path.write_text(f"The {name} speaks of many things.\n" * 1500)
        monkeypatch.setattr(accuracy_texts, name, lambda path=path: path)
    return open_checkpoint(synth_checkpoint("toy", tmp_path / "toy", seed=1)).files()


def test_evaluation_takes_as_much_of_each_text_as_is_needed(files: dict[str, bytes]) -> None:
    tokenizer = Tokenizer.from_files(files)
    path, windows = evaluation(tokenizer, 20)
    assert len(windows) == 20
    assert {len(window) for window in windows} == {WINDOW}
    text = path.read_text()
    assert text.count("alice") == pytest.approx(text.count("handbook"), rel=0.2)
    tokens = tokenizer.encode(text, bos=True)
    assert [t for window in windows for t in window][1:WINDOW] == tokens[1:WINDOW]
    assert 20 * WINDOW <= len(tokens) < 26 * WINDOW
    assert evaluation(tokenizer, 20)[0] == path
    with pytest.raises(models.UnavailableError, match="windows of 512"):
        evaluation(tokenizer, 100_000)


def test_calibration_is_the_built_in_mix(files: dict[str, bytes]) -> None:
    path, tokens = calibration(files)
    text = path.read_text()
    assert default_calibration()[0] in text
    assert tokens == Tokenizer.from_files(files).encode(text, bos=True)


def test_a_limit_shortens_calibration_and_keeps_every_document(files: dict[str, bytes]) -> None:
    path, tokens = calibration(files)
    shorter, fewer = calibration(files, len(tokens) // 4)
    assert 0.2 < len(fewer) / len(tokens) < 0.3
    assert shorter != path
    # Conversations are there in the model's own format.
    starts = [document[:100] for document in default_calibration() if document[:100] in path.read_text()]
    assert len(starts) > 3
    assert all(start in shorter.read_text() for start in starts)
    assert calibration(files, 2 * len(tokens)) == (path, tokens)
