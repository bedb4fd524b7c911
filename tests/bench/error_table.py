"""A table of errors in a document, held to the results that a bench command wrote."""

import re
from collections.abc import Iterable, Sequence
from typing import Any


def assert_table_says(lines: Iterable[str], written: Sequence[dict[str, Any]], last: str) -> None:
    """Every backend has a row: figures, the four errors without its model and its source, and the one that
    `last` names."""
    by_name = {one["backend"]: one for one in written}
    shown = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in by_name:
            shown[cells[0]] = cells[1:]
    assert set(shown) == set(by_name)
    for backend, cells in shown.items():
        one = by_name[backend]
        out = one["source_out"] or {"formula": None, "baseline": None}
        errors = (*(one["model_out"][k] for k in ("formula", "baseline")), out["formula"], out["baseline"])
        assert cells[0] == str(one["model_out"]["formula"]["rows"])
        for cell, off in zip(cells[1:], (*errors, one[last]), strict=True):
            if off is None:
                assert cell == "-"
            else:
                assert re.findall(r"\d+", cell) == [f"{100 * off[k]:.0f}" for k in ("median", "p90")]
