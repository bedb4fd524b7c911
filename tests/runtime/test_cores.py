"""Which cores are chosen, on trees that look like sysfs of known machines."""

import os
import threading
from pathlib import Path

import pytest

from rockledge.runtime.cores import default_cores, performance_cores, started_on


def machine(tree: Path, speeds: list[int | None], siblings: list[str] | None = None) -> Path:
    for cpu, speed in enumerate(speeds):
        folder = tree / f"cpu{cpu}"
        (folder / "topology").mkdir(parents=True)
        (folder / "topology" / "thread_siblings_list").write_text((siblings or [str(cpu)] * 99)[cpu] + "\n")
        if siblings is None:
            (folder / "topology" / "thread_siblings_list").write_text(f"{cpu}\n")
        if speed is not None:
            (folder / "cpufreq").mkdir()
            (folder / "cpufreq" / "cpuinfo_max_freq").write_text(f"{speed}\n")
    return tree


RK3588 = [1800000] * 4 + [2256000, 2256000, 2304000, 2304000]


def test_big_cores_of_an_rk3588(tmp_path: Path) -> None:
    assert performance_cores(range(8), machine(tmp_path, RK3588)) == (4, 5, 6, 7)


def test_only_the_cores_this_process_may_use(tmp_path: Path) -> None:
    assert performance_cores([0, 1, 6], machine(tmp_path, RK3588)) == (6,)
    assert performance_cores([3, 2], tmp_path) == (2, 3)


def test_one_thread_for_two_hardware_threads_of_a_core(tmp_path: Path) -> None:
    tree = machine(tmp_path, [None] * 4, ["0,2", "1,3", "0,2", "1,3"])
    assert performance_cores(range(4), tree) == (0, 1)


def test_without_sysfs_every_allowed_core_counts(tmp_path: Path) -> None:
    assert performance_cores([0, 1, 2], tmp_path / "absent") == (0, 1, 2)


def test_default_follows_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1, 4, 5})
    assert default_cores(machine(tmp_path, RK3588)) == (4, 5)


def test_started_threads_stay_on_their_cores() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    found: list[set[int]] = []
    with started_on([core]):
        thread = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
    assert found == [{core}]
    assert os.sched_getaffinity(0) == before
