"""The journal of a stopped run: what counts of a file that a crash or a hand has changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from rockledge.distillation.question_answer.journal import Journal

RUN = {"pairs": 4}


@pytest.mark.parametrize(
    "line",
    [
        {"batch": 1},
        {"batch": 1, "outputs": "ab"},
        {"batch": 1, "outputs": [["a"]]},
        {"batch": 1, "outputs": [["a", True, 3]]},
        {"batch": 1, "outputs": [[None, True]]},
        {"batch": 2, "outputs": [["b", True]]},
    ],
)
def test_a_line_that_is_no_batch_ends_what_counts(line: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "journal"
    with Journal(file, RUN) as journal:
        journal.add([("a", True)])
    kept = file.read_bytes()
    file.write_bytes(kept + json.dumps(line).encode() + b"\n")
    with Journal(file, RUN) as journal:
        assert journal.batches == [[("a", True)]]
    assert file.read_bytes() == kept
