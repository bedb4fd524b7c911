"""`rockledge bench` on a toy model: what it reports, not how fast it is."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_speeds_and_memory_are_measured(rockledge: Run, artifact: Path) -> None:
    done = rockledge(
        "bench", artifact, "--prompt", 16, "--generate", 8, "--repeat", 5, "--threads", 1, "--json"
    )
    assert done.code == 0
    body = done.json
    assert (body["prompt_tokens"], body["generated_tokens"], body["threads"]) == (16, 8, 1)
    for key in ("prefill_tok_s", "decode_tok_s"):
        assert len(body[f"{key}_runs"]) == 5
        assert body[key] == statistics.median(body[f"{key}_runs"]) > 0
    assert body["peak_rss_mb"] > body["weights_mb"] > 0
    assert body["kernel"] in ("portable", "avx2", "vnni", "neon")


def test_people_read_tokens_a_second(rockledge: Run, artifact: Path) -> None:
    done = rockledge("bench", artifact, "--prompt", 4, "--generate", 4, "--repeat", 1)
    assert [line.split()[0] for line in done.out.splitlines()] == ["prefill", "decode", "memory", "loading"]


def test_what_does_not_fit_is_said(rockledge: Run, artifact: Path) -> None:
    done = rockledge("bench", artifact, "--prompt", 500, "--generate", 100)
    assert done.code == 2
    assert "context" in done.err
