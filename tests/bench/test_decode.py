"""The comparison with llama.cpp, with a stand-in for its benchmark that prints known speeds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rockledge.synth import synth_artifact

STAND_IN = """#!/bin/sh
# 1000 tok/s of prefill; 50 tok/s of decode, but only behind the context asked for.
case "$*" in
  *"-p 8 -n 0"*) echo '[{"avg_ts": 1000.0}]' ;;
  *"-p 0 -n 4 -d 8"*) echo '[{"avg_ts": 50.0}]' ;;
  *) exit 1 ;;
esac
"""


def decode(folder: Path, tools: Path) -> subprocess.CompletedProcess[str]:
    """Runs bench.decode on a toy artifact with llama.cpp's tools taken from `tools`."""
    artifact = synth_artifact("toy", folder / "toy")
    sizes = ["--threads", "1", "--prompt", "8", "--generate", "4", "--runs", "2"]
    files = ["--gguf", str(folder / "any.gguf"), "--out", str(folder / "new" / "out.json")]
    return subprocess.run(
        [sys.executable, "-m", "bench.decode", str(artifact), *sizes, *files],
        env={**os.environ, "ROCKLEDGE_LLAMA_CPP": str(tools)},
        capture_output=True,
        text=True,
    )


def test_ratios_are_ours_over_theirs(tmp_path: Path) -> None:
    tool = tmp_path / "llama-bench"
    tool.write_text(STAND_IN)
    tool.chmod(0o755)
    done = decode(tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "new" / "out.json").read_text())
    for speed, theirs in (("prefill_tok_s", 1000.0), ("decode_tok_s", 50.0)):
        assert result[speed]["runs"]["llama.cpp"] == [theirs, theirs]
        ours = result[speed]["runs"]["rockledge"]
        assert len(ours) == 2
        assert result[speed]["ratio"] == pytest.approx(sum(ours) / 2 / theirs, abs=1e-3)
    assert "llama.cpp Q4_0    50.0 tok/s" in done.stdout


def test_without_llama_cpp_only_our_side_is_measured(tmp_path: Path) -> None:
    done = decode(tmp_path, tmp_path / "nowhere")
    assert done.returncode == 0, done.stderr
    assert "make llama-cpp" in done.stderr
    result = json.loads((tmp_path / "new" / "out.json").read_text())
    assert result["llama_cpp_model"] is None
    assert "ratio" not in result["decode_tok_s"]
    assert result["decode_tok_s"]["median"].keys() == {"rockledge"}
