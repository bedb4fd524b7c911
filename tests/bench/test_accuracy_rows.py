"""Rows are measured once for the same settings, know their commit, and the digest follows the code."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from bench import accuracy_rows
from bench.ablation import Gain
from bench.accuracy_rows import Measured, Row, code_digest, measured, remembered
from bench.llama_cpp import LlamaDivergence
from bench.machine import commit

RESULTS = Path(accuracy_rows.__file__).parent / "results"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKLEDGE_CACHE", str(tmp_path / "cache"))


def test_a_row_is_measured_once_for_its_settings() -> None:
    calls = []

    def measure() -> Measured:
        calls.append(1)
        return Measured(
            Row("m", "e", "4.5", 10, 4.5, 0.1 + len(calls), 0.5, 0.9, 20.0, "abc1234"), 0.01, 19.0
        )

    first = remembered({"a": 1, "b": 2}, measure)
    assert remembered({"b": 2, "a": 1}, measure) == first
    assert len(calls) == 1
    assert remembered({"a": 1, "b": 3}, measure) != first
    assert len(calls) == 2


def test_a_failed_measurement_is_not_remembered() -> None:
    def fail() -> Measured:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        remembered({"a": 1}, fail)
    row = Measured(Row("m", "e", "4.5", 10, 4.5, 0.1, 0.5, 0.9, 20.0, "abc1234"), 0.01, 19.0)
    assert remembered({"a": 1}, lambda: row) == row


def test_a_row_says_which_commit_was_measured() -> None:
    report = LlamaDivergence(0.1, 0.01, 0.5, 0.9, 20.0, 0.5, 19.0, 0.05, 0.01)
    row = measured("m", "e", "Q4_0", 10, 20, report).row
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=RESULTS, capture_output=True, text=True)
    if done.returncode:
        assert row.commit == "unknown"
    else:
        assert done.stdout.startswith(row.commit.removesuffix("-dirty"))
        assert len(row.commit.removesuffix("-dirty")) >= 7


def test_there_may_be_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", "/")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    assert commit.__wrapped__() == "unknown"


@pytest.mark.parametrize("name, kind", [("accuracy", Row), ("accuracy-quick", Row), ("ablation", Gain)])
def test_all_saved_rows_say_it(name: str, kind: type) -> None:
    rows = [kind(**row) for row in json.loads((RESULTS / f"{name}.json").read_text())["rows"]]
    assert rows
    assert [row for row in rows if not re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", row.commit)] == []


def test_the_digest_follows_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "native").mkdir()
    source = tmp_path / "src/rockledge/quantization/a.py"
    source.parent.mkdir(parents=True)
    source.write_text("one")
    monkeypatch.setattr(accuracy_rows, "__file__", str(tmp_path / "bench/accuracy_rows.py"))
    first = code_digest()
    assert code_digest() == first
    source.write_text("two")
    second = code_digest()
    (tmp_path / "native/a.cpp").write_text("x")
    assert len({first, second, code_digest()}) == 3
