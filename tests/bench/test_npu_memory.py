"""Memory with the NPU: sums by hand, what the kernel says of a process, and the stored result."""

import json
from pathlib import Path

from bench.npu_memory import LIMIT, RESULTS, at_most, main, peak, planned, total
from rockledge.synth import synth_artifact


def test_a_plan_is_within_the_boards_budget(tmp_path: Path) -> None:
    artifact = synth_artifact("toy", tmp_path / "toy")
    plan = planned(artifact, 512)
    uses = ("weights_bytes", "arena_bytes", "cache_bytes", "npu_buffers_bytes")
    assert total(plan) == sum(plan[use] for use in uses)
    assert 0 < plan["npu_buffers_bytes"] <= plan["npu_budget_bytes"]
    # Two layers, two heads of 16 and a scale each, keys and values; rows of the cache are whole tiles.
    assert plan["cache_bytes"] == 512 * 2 * 2 * 2 * (32 + 4)
    assert plan["pinned_blocks"] == plan["blocks"]
    assert main([str(artifact), "--context", "512", "--output", str(tmp_path / "out.json")]) == 0
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["planned_bytes"] == total(plan)


def test_what_the_kernel_says_of_a_process() -> None:
    status = "Name:\tx\nVmHWM:\t  12 kB\nRssAnon:\t 3 kB\nRssFile:\t 2 kB\nRssShmem:\t 1 kB\nThreads:\t1\n"
    assert peak(status) == {
        "peak_rss_bytes": 12 << 10,
        "anonymous_bytes": 3 << 10,
        "files_bytes": 2 << 10,
        "shared_bytes": 1 << 10,
    }


def test_what_a_short_prompt_did_not_touch_is_added() -> None:
    plan = {"weights_bytes": 100, "arena_bytes": 10, "cache_bytes": 20}
    assert at_most(plan, {"peak_rss_bytes": 120, "files_bytes": 70}) == 120 + 10 + 20 + 30
    assert at_most(plan, {"peak_rss_bytes": 120, "files_bytes": 130}) == 120 + 10 + 20


def test_the_stored_8b_is_below_the_limit() -> None:
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert stored["context"] == 8192
    assert stored["planned"]["weights_bytes"] > 4.2e9
    assert stored["planned_bytes"] == total(stored["planned"]) <= LIMIT
    taken, plan = stored["taken"], stored["planned"]
    assert at_most(plan, taken) == stored["at_most_bytes"] <= LIMIT
    assert taken["npu"]["buffer_bytes"] <= plan["npu_budget_bytes"]
    assert taken["npu"]["rows"] >= plan["from_rows"]
    assert stored["within"]
