"""Planned memory beside a process: parts of a small model, what the kernel says, the stored result."""

import json
from pathlib import Path

import pytest

from bench.planned_memory import LIMIT, PARTS, RESULTS, compared, mapped, planned, table
from rockledge.synth import SHAPES


def test_files_below_a_folder_are_counted(tmp_path: Path) -> None:
    inside = tmp_path.resolve() / "model.safetensors"
    smaps = (
        f"7f00-7f10 r--p 00000000 08:01 42   {inside}\nSize:  64 kB\nRss:   12 kB\nPss:  12 kB\n"
        "7f20-7f30 rw-p 00000000 00:00 0 \nSize:  64 kB\nRss:   7 kB\n"
        f"7f40-7f50 r--p 00010000 08:01 42   {inside}\nRss:   1 kB\nVmFlags: rd\n"
        "7f60-7f70 r--p 00000000 08:01 43   /usr/lib/libc.so.6\nRss:   900 kB\n"
    )
    assert mapped(smaps, tmp_path) == 13 << 10


def test_a_small_model_takes_what_was_planned(tmp_path: Path) -> None:
    """By part: weights to the page, cache and arena as far as a plan is above any recipe, and a process that
    is below its reserve."""
    result = compared("135m", 4, 256, "rpi5-8gb", tmp_path)
    plan, taken = result["planned"], result["measured"]
    assert taken["read_tokens"] == 248
    assert plan["total"] == sum(plan[part] for part in PARTS[:-1])
    assert taken["weights"] == pytest.approx(plan["weights"], rel=0.05)
    assert taken["working"] <= plan["working"] <= 7 / 6 * taken["working"]
    assert 0 < taken["process"] <= plan["process"]
    assert "planned" in table(result)


def test_the_stored_8b_is_within_the_limit() -> None:
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert (stored["shape"], stored["context"]) == ("8b", 8192)
    assert stored["bits_per_weight"] == pytest.approx(4.25, abs=0.01)
    plan, taken = stored["planned"], stored["measured"]
    assert plan == planned(SHAPES["8b"], 4, 8192, stored["board"])
    assert taken["read_tokens"] >= 8192 - 16
    assert abs(plan["total"] / taken["total"] - 1) <= LIMIT
