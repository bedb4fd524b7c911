"""Faults files: what they may say, and when what they say happens."""

import json
from pathlib import Path

import pytest

from rockledge.errors import NpuError
from rockledge_npu_lab.virtual.device_faults import (
    ALLOCATION,
    HOW_DEAD,
    JOB,
    KINDS,
    Schedule,
    load_faults,
    parse_faults,
)

VALUES = {
    "seconds": 0.5,
    "errno": "EIO",
    "bytes": 4096,
    "hertz": 200_000_000,
    "program": -1,
    "every": 2,
    "rows": 1,
    "core": 2,
    "waits": 3,
    "bit": 24,
    "how": "nothing",
}


@pytest.mark.parametrize("complete", [False, True])
def test_every_kind_can_be_written(tmp_path, complete):
    listed = [
        {"kind": name, **{key: VALUES[key] for key in kind.takes + kind.may_take * complete}}
        for name, kind in KINDS.items()
    ]
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
        takes = ", ".join(f"`{key}`" for key in kind.takes)
        may_take = ", ".join(f"`{key}`" for key in kind.may_take)
        assert found[3] == ", ".join(filter(None, [takes, may_take and f"({may_take})"]))
    for how in HOW_DEAD:
        assert f"`{how}`" in text


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


def test_a_fault_of_a_core_happens_to_jobs_on_it():
    schedule = Schedule(
        parse_faults({"faults": [{"kind": "lost", "core": 1, "times": 9}, {"kind": "dead_core", "core": 2}]})
    )
    jobs = [[fault.kind for fault in schedule.next(JOB, cores)] for cores in ([0], [0, 1], [2], [0, 1, 2])]
    assert jobs == [[], ["lost"], ["dead_core"], ["lost", "dead_core"]]
    assert schedule.happened == 4


def test_a_dead_core_stays_dead():
    schedule = Schedule(parse_faults({"faults": [{"kind": "dead_core", "core": 0, "at": 3}]}))
    assert [len(schedule.next(JOB, [0])) for _ in range(5)] == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    "body, words",
    [
        ([], "not an object"),
        ({"faults": 3}, "not an object"),
        ({"faults": [3]}, "kind None"),
        ({"faults": [{"kind": "sleepy"}]}, "'sleepy'"),
        ({"faults": [{"kind": "lost", "at": 0}]}, "at 0"),
        ({"faults": [{"kind": "lost", "at": True}]}, "at True"),
        ({"faults": [{"kind": "lost", "seconds": 1}]}, "'seconds'"),
        ({"faults": [{"kind": "late"}]}, "lacks 'seconds'"),
        ({"faults": [{"kind": "late", "seconds": -1}]}, "seconds -1"),
        ({"faults": [{"kind": "late", "seconds": float("nan")}]}, "seconds nan"),
        ({"faults": [{"kind": "error", "errno": "ENOSUCH"}]}, "'ENOSUCH'"),
        ({"faults": [{"kind": "error", "errno": 5}]}, "errno 5"),
        ({"faults": [{"kind": "memory", "bytes": 1.5}]}, "bytes 1.5"),
        ({"faults": [{"kind": ["lost"]}]}, "['lost']"),
        ({"faults": [{"kind": "lost", "core": 3}]}, "core 3"),
        ({"faults": [{"kind": "lost", "core": True}]}, "core True"),
        ({"faults": [{"kind": "lost", "waits": 4}]}, "waits 4"),
        ({"faults": [{"kind": "skipped_program"}]}, "lacks 'program'"),
        ({"faults": [{"kind": "skipped_program", "program": 0}]}, "program 0"),
        ({"faults": [{"kind": "wrong_rows", "every": -1}]}, "every -1"),
        ({"faults": [{"kind": "dead_core"}]}, "lacks 'core'"),
        ({"faults": [{"kind": "dead_core", "core": 1, "how": "slowly"}]}, "how 'slowly'"),
        ({"faults": [{"kind": "dead_core", "core": 1, "how": ["lost"]}]}, "how ['lost']"),
        ({"faults": [{"kind": "slow_clock", "hertz": 2e8}]}, "hertz 200000000.0"),
        ({"faults": [{"kind": "error", "errno": "__name__"}]}, "errno '__name__'"),
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
