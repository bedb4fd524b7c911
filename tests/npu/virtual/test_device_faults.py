"""Faults files: what they may say, and when what they say happens."""

import json
from pathlib import Path

import pytest

from rockledge.errors import NpuError
from rockledge.npu.virtual.device_faults import ALLOCATION, JOB, KINDS, Schedule, load_faults, parse_faults


def test_every_kind_can_be_written(tmp_path):
    values = {"seconds": 0.5, "errno": "EIO", "bytes": 4096}
    listed = [{"kind": name, **{key: values[key] for key in kind.takes}} for name, kind in KINDS.items()]
    file = tmp_path / "faults.json"
    file.write_text(json.dumps({"faults": listed}))
    assert [fault.kind for fault in load_faults(file)] == list(KINDS)


def test_every_kind_stands_in_the_documentation_with_what_it_takes():
    text = (Path(__file__).parents[3] / "docs/npu.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    for name, kind in KINDS.items():
        (found,) = (row for row in rows if row[1] == f"`{name}`")
        assert found[3] == ", ".join(f"`{key}`" for key in kind.takes)


def test_faults_happen_to_the_numbers_they_name():
    faults = parse_faults(
        {
            "faults": [
                {"kind": "lost", "at": 2, "times": 2},
                {"kind": "skipped", "at": 3},
                {"kind": "refused", "errno": "ENOMEM"},
            ]
        }
    )
    schedule = Schedule(faults)
    jobs = [[fault.kind for fault in schedule.next(JOB)] for _ in range(4)]
    assert jobs == [[], ["lost"], ["lost", "skipped"], []]
    assert [len(schedule.next(ALLOCATION)) for _ in range(2)] == [1, 0]
    assert schedule.happened == 4


@pytest.mark.parametrize(
    "body, words",
    [
        ([], "no object"),
        ({"faults": 3}, "no object"),
        ({"faults": [3]}, "kind None"),
        ({"faults": [{"kind": "sleepy"}]}, "'sleepy'"),
        ({"faults": [{"kind": "lost", "at": 0}]}, "at 0"),
        ({"faults": [{"kind": "lost", "at": True}]}, "at True"),
        ({"faults": [{"kind": "lost", "seconds": 1}]}, "'seconds'"),
        ({"faults": [{"kind": "late"}]}, "no 'seconds'"),
        ({"faults": [{"kind": "late", "seconds": -1}]}, "seconds -1"),
        ({"faults": [{"kind": "late", "seconds": float("nan")}]}, "seconds nan"),
        ({"faults": [{"kind": "error", "errno": "ENOSUCH"}]}, "'ENOSUCH'"),
        ({"faults": [{"kind": "error", "errno": 5}]}, "errno 5"),
        ({"faults": [{"kind": "memory", "bytes": 1.5}]}, "bytes 1.5"),
        ({"faults": [{"kind": ["lost"]}]}, "['lost']"),
    ],
)
def test_mistakes_name_the_entry(body, words):
    with pytest.raises(NpuError) as error:
        parse_faults(body)
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00"])
def test_files_that_are_no_json_are_refused(tmp_path, text):
    file = tmp_path / "faults.json"
    file.write_text(text)
    with pytest.raises(NpuError, match="cannot be read as JSON"):
        load_faults(file)
