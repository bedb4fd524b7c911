"""The speed table with toy models and stand-ins for llama.cpp's tools that print known speeds."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import speed, speed_models
from bench.machine import Foreign, endless_loops
from bench.models import UnavailableError
from bench.speed_models import write_float_gguf
from bench.speed_rows import Goal, Row, Setting, alternating
from bench.speed_runs import llama_batched, llama_bench, ours, output
from rockledge.model.checkpoint import open_checkpoint
from rockledge.runtime.processor import this_processor
from rockledge.synth import SHAPES, synth_artifact, synth_checkpoint

BENCH = """#!/bin/sh
case "$*" in
  *"-t 2"*"-p 0 -n "*) echo '[{"avg_ts": 50.0}]' ;;
  *Q8_0*"-p "*" -n 0"*) echo '[{"avg_ts": 900.0}]' ;;
  *"-p "*" -n 0"*) echo '[{"avg_ts": 800.0}]' ;;
  *"-t 1"*) echo '[{"avg_ts": 40.0}]' ;;
  *) exit 1 ;;
esac
"""
BATCHED = """#!/bin/sh
echo "some header"
echo '{"pl": 8, "speed_tg": 100.0}'
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """llama.cpp's tools, and toy models in place of every shape."""
    for name, text in (("llama-bench", BENCH), ("llama-batched-bench", BATCHED)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    toy = synth_artifact(replace(SHAPES["toy"], context=4096), tmp_path / "toy")
    monkeypatch.setenv("ROCKLEDGE_LLAMA_CPP", str(tmp_path))
    monkeypatch.setattr(speed_models, "artifact", lambda shape, bits=4: toy)
    monkeypatch.setattr(speed_models, "llama_file", lambda shape, kind, threads: tmp_path / f"{kind}.gguf")
    return tmp_path


def table(out: Path, *arguments: str) -> int:
    return speed.main(["--threads", "2", "--runs", "1", "--out", str(out), *arguments])


def own(out: Path) -> dict[str, Any]:
    """The table of this machine's processor."""
    found: dict[str, Any] = json.loads(out.read_text())["processors"][this_processor().name_and_family]
    return found


def test_tables_of_other_processors_stay(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tools / "speed.json"
    theirs = {"clocks_mhz": [4000], "ratios": {"decode_1b": 1.5}, "rows": {"start": {"goals": {}}}}
    out.write_text(json.dumps({"processors": {"Another, family 26, model 2": theirs}}))
    monkeypatch.setitem(speed.ROWS, "start", lambda at: Row({"s": [0.5]}, {}, {"s": Goal(0.5, 1.0, True)}))
    assert table(out, "--only", "start") == 0
    assert json.loads(out.read_text())["processors"]["Another, family 26, model 2"] == theirs
    assert own(out)["rows"]["start"]["goals"]["s"]["met"]


def test_the_published_file_has_such_tables() -> None:
    for name, kept in speed.tables(speed.TARGET).items():
        assert "family" in name
        assert kept["rows"].keys() <= speed.ROWS.keys()
        assert kept["ratios"] == speed.ratios(kept["rows"])


def test_rows_are_measured_kept_and_judged(
    tools: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tools / "new" / "speed.json"
    monkeypatch.setattr("bench.speed_rows.BUFFER", "4M")
    assert table(out, "--only", "decode_1b", "batch8_1b") == 0
    written = own(out)
    decode = written["rows"]["decode_1b"]
    assert decode["runs"]["Q4_0"] == decode["runs"]["Q4_K_M"] == [50.0]
    ratio = decode["medians"]["rockledge"] / 50
    assert decode["goals"]["ratio"]["value"] == pytest.approx(ratio, abs=1e-3)
    assert decode["goals"]["ratio"]["met"] == (ratio >= 1.4)
    assert written["ratios"]["decode_1b"] == decode["goals"]["ratio"]["value"]
    assert written["ratios"]["roofline_share"] == decode["medians"]["share_of_small_page_bandwidth"]
    assert written["ratios"].keys() == {"decode_1b", "batch8_decode", "roofline_share"}
    assert written["rows"]["batch8_1b"]["runs"]["Q4_0"] == [100.0]
    assert "decode_1b" in capsys.readouterr().out

    monkeypatch.setitem(speed.ROWS, "decode_1b", lambda at: pytest.fail("it is there already"))
    for name in set(speed.ROWS) - {"decode_1b", "batch8_1b", "start"}:
        monkeypatch.delitem(speed.ROWS, name)
    monkeypatch.setattr(speed, "QUIET", 1.0)
    monkeypatch.setitem(speed.ROWS, "start", lambda at: Row({"s": [3.0]}, {}, {"s": Goal(3.0, 1.0, True)}))
    assert table(out) == 0
    assert list(own(out)["rows"]) == ["decode_1b", "batch8_1b", "start"]
    assert "MISSED" in capsys.readouterr().out


def test_prefill_is_compared_with_the_best_type_of_a_trial(tools: Path) -> None:
    row = speed.ROWS["prefill_135m"](Setting(2, 1))
    assert set(row.runs) == {"rockledge 128", "Q8_0 128", "rockledge 512", "Q8_0 512"}
    assert row.runs["Q8_0 512"] == [900.0]
    assert row.facts["trial_128"]["Q4_0"] == 800.0


def test_sides_take_turns() -> None:
    order: list[str] = []

    def run(side: str) -> float:
        order.append(side)
        return float(len(order))

    found = alternating(2, {"a": lambda: run("a"), "b": lambda: run("b")})
    assert order == ["a", "b", "a", "b"]
    assert found == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_one_run_of_each_side(tools: Path) -> None:
    assert llama_bench(tools / "m.gguf", 2, "-p", 0, "-n", 4) == [50.0]
    assert llama_batched(tools / "m.gguf", 2, 8, 4, 4) == 100.0
    found = ours(tools / "toy", 1, "--prompt", 4, "--generate", 2, "--repeat", 1)
    assert found["decode_tok_s"] > 0
    with pytest.raises(UnavailableError, match="failed"):
        ours(tools / "toy", 1, "--prompt", 4, "--generate", 2, "--repeat", 1, limit=64 << 20)
    with pytest.raises(UnavailableError, match="went wrong"):
        output([sys.executable, "-c", "raise SystemExit('it went wrong')"])


def test_a_gguf_of_a_shape_has_all_its_tensors(tmp_path: Path) -> None:
    from gguf import GGUFReader

    shape = speed_models.shape_without_scaling("toy")
    checkpoint = open_checkpoint(synth_checkpoint(shape, tmp_path / "toy"))
    write_float_gguf(checkpoint, tmp_path / "toy.gguf")
    reader = GGUFReader(tmp_path / "toy.gguf")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == len(checkpoint.names())
    embed = checkpoint.tensor("embed")
    assert tensors["token_embd.weight"].data.shape == embed.shape
    assert (tensors["token_embd.weight"].data == embed.astype("float16")).all()
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["llama.vocab_size"] == shape.vocab
    assert fields["llama.block_count"] == shape.layers
    words = json.loads(checkpoint.files()["tokenizer.json"])["model"]["vocab"]
    assert fields["tokenizer.ggml.tokens"] == sorted(words, key=words.get)
    assert len(words) == shape.vocab


def test_endless_loops_end_with_those_who_started_them() -> None:
    foreign = Foreign()
    with endless_loops(1):
        time.sleep(0.5)
    assert 0.0 <= foreign.share() <= 1.0
    program = "import os, time; from bench.machine import endless_loops as e\nwith e(1): os._exit(3)"
    started = time.monotonic()
    # The pipe is closed by the last process that holds it: the loop.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode == 3
    assert time.monotonic() - started < 60


def test_without_llama_cpp_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROCKLEDGE_LLAMA_CPP", str(tmp_path))
    assert table(tmp_path / "speed.json") == 1
    assert "make llama-cpp" in capsys.readouterr().err
