"""The whole table over a toy model: our rows are real, llama.cpp's tools are stand-ins."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.bench.test_llama_cpp import REPORT
from tests.model.checkpoints import random_model, write_gguf

from bench import accuracy, accuracy_texts
from bench.accuracy_models import TableModel
from bench.accuracy_rows import Row

# A base file with the tokens it was told, a report, and files that are copies of the float one.
PERPLEXITY = """#!{python}
import pathlib, sys
words = sys.argv
base = pathlib.Path(words[words.index("--kl-divergence-base") + 1])
if "--kl-divergence" in words:
    print({report!r})
else:
    base.write_bytes(pathlib.Path({base!r}).read_bytes())
"""
QUANTIZE = """#!{python}
import shutil, sys
shutil.copy(sys.argv[-4], sys.argv[-3])
"""
IMATRIX = """#!{python}
import pathlib, sys
pathlib.Path(sys.argv[sys.argv.index("-o") + 1]).write_text("matrix")
"""

# Large enough for tables and scales to be a small part of it.
SIZE = {"hidden_size": 192, "intermediate_size": 256, "max_position_embeddings": 1024}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TableModel:
    """The only model of the table; texts, cache, results and tools are this test's own."""
    monkeypatch.setenv("ROCKLEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(accuracy, "RESULTS", tmp_path / "results")
    for name in ("alice", "handbook"):
        path = tmp_path / name
        path.write_text(f"the {name} speaks of these and those other things\n" * 300)
        monkeypatch.setattr(accuracy_texts, name, lambda path=path: path)
    source = write_gguf(tmp_path / "toy.gguf", random_model("smollm", **SIZE))
    model = TableModel("toy", lambda: source, "a toy")
    monkeypatch.setattr(accuracy, "MODELS", {"toy": model})
    return model


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[list[int]]], None]:
    """`tools(windows)` puts stand-ins in place whose reference run saw these windows."""

    def install(windows: list[list[int]]) -> None:
        base = tmp_path / "told-base.bin"
        head = np.array([len(windows[0]), 80, len(windows)], np.int32).tobytes()
        base.write_bytes(b"_logits_" + head + np.array(windows, np.int32).tobytes())
        monkeypatch.setenv("ROCKLEDGE_LLAMA_CPP", str(tmp_path))
        for name, script in (
            ("llama-perplexity", PERPLEXITY), ("llama-quantize", QUANTIZE), ("llama-imatrix", IMATRIX),
        ):  # fmt: skip
            (tmp_path / name).write_text(script.format(python=sys.executable, report=REPORT, base=str(base)))
            (tmp_path / name).chmod(0o755)

    return install


def test_llama_rows_are_merged_and_judged(
    toy: TableModel, tools: Callable[[list[list[int]]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    windows = accuracy.prepare(toy, 3, 1).windows
    tools(windows)
    command = ["--model", "toy", "--engine", "llama.cpp", "--windows", "3"]
    assert accuracy.main(command) == 0
    body = json.loads((accuracy.RESULTS / "accuracy.json").read_text())
    assert (accuracy.RESULTS / "accuracy.png").stat().st_size > 1000
    rows = [Row(**row) for row in body["rows"]]
    assert len(rows) == 20
    assert {row.kl_mean_nats for row in rows} == {0.2889}
    assert {row.bits_per_weight for row in rows} == {32.0}
    assert body["models"]["toy"]["scored_tokens"] == 3 * 255
    verdicts = {goal["goal"]: goal["met"] for goal in body["goals"]}
    assert verdicts["8 bits: KL at most 0.01"] is None
    assert "not judged" in capsys.readouterr().out
    # The second run reads what the first one left: the tools are not asked again.
    tools([[0] * 512] * 3)
    assert accuracy.main(command) == 0


def test_other_tokens_are_refused(
    toy: TableModel, tools: Callable[[list[list[int]]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    tools([[0] * 512] * 3)
    assert accuracy.main(["--model", "toy", "--engine", "llama.cpp", "--windows", "3"]) == 1
    assert "other tokens" in capsys.readouterr().err


def test_a_shared_span_stops_the_run(
    toy: TableModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "the alice speaks of these and those other things\n" * 4
    monkeypatch.setattr(accuracy_texts, "default_calibration", lambda render: [text])
    assert accuracy.main(["--model", "toy", "--windows", "2"]) == 1
    assert "share" in capsys.readouterr().err


@pytest.mark.slow
def test_our_rows(toy: TableModel) -> None:
    command = ["--model", "toy", "--engine", "rockledge", "--windows", "2", "--bits", "4.25", "8"]
    assert accuracy.main(command) == 0
    rows = [Row(**row) for row in json.loads((accuracy.RESULTS / "accuracy.json").read_text())["rows"]]
    found = {row.name: row for row in rows}
    assert list(found) == ["4.25 uniform", "4.25", "8"] or list(found) == ["4.25", "4.25 uniform", "8"]
    assert found["4.25"].bits_per_weight <= 4.25
    assert found["4.25 uniform"].bytes <= 1.01 * found["4.25"].bytes
    assert found["8"].kl_mean_nats < found["4.25"].kl_mean_nats
