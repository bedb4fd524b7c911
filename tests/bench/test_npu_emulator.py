"""The emulator's bench measures what it says, and its sums are right."""

import json

from bench import npu_emulator


def test_a_product_is_exact(capsys):
    assert npu_emulator.main(["--part", "product"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["inputs"], found["columns"]) == (128, 2048, 768)
    assert found["exact"]
    assert 0 < found["best_ms"] <= found["median_ms"]


def test_the_report_names_both_parts():
    product = {"rows": 1, "inputs": 2, "columns": 3, "best_ms": 4, "median_ms": 5, "median_cpu_ms": 6}
    prefill = {"model": "m", "tokens": 7, "linear_layers": 8, "seconds": 9, "cpu_seconds": 10}
    prefill |= {"plan_seconds": 11, "goal_seconds": 20, "exact": False, "flags": 0}
    first, second = npu_emulator.report(
        {"product": {**product, "goal_ms": 30, "exact": True}, "prefill": prefill}
    )
    assert "1 x 2 x 3" in first
    assert first.endswith("exact")
    assert "8 linear layers" in second
    assert "WRONG" in second
