"""The document shows the errors of operators that the bench wrote, which are within the stated bounds."""

import json
from pathlib import Path

from bench.npu_operators import RESULTS, cases, measured, tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "npu.md"


def test_the_document_s_tables_are_the_bench_s():
    lines = DOCUMENT.read_text().splitlines()
    found = json.loads(RESULTS.read_text())
    assert all(row in lines for row in tables(found))
    assert all(row["of_bound"] <= 1 and row["equals_twin"] for row in found["operators"])
    assert all(row["equals_twin"] for row in found["requantised"])


def test_a_row_is_measured_again_as_written():
    case = next(case for case in cases() if case.name == "exp")
    written = json.loads(RESULTS.read_text())["operators"]
    assert measured(case) in written
