"""What a process may still take, from files as Linux writes them."""

from pathlib import Path

import pytest

from rockledge.runtime.available_memory import available_bytes

MB = 1 << 20


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A machine with 1000 MiB available."""
    write(tmp_path / "proc/meminfo", f"MemTotal: {2000 * 1024} kB\nMemAvailable:   {1000 * 1024} kB\n")
    return tmp_path


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(text))


def found(place: Path) -> int | None:
    return available_bytes(place / "proc", place / "groups")


def group(place: Path, limit: object, used: int, cache: int, *, v1: bool = False) -> None:
    names = ("limit_in_bytes", "usage_in_bytes") if v1 else ("max", "current")
    write(place / f"memory.{names[0]}", f"{limit}\n")
    write(place / f"memory.{names[1]}", f"{used}\n")
    key = "total_inactive_file" if v1 else "inactive_file"
    write(place / "memory.stat", f"anon 5\ninactive_file {cache if not v1 else 0}\n{key} {cache}\n")


def test_without_groups_it_is_what_the_system_has(place: Path) -> None:
    assert found(place) == 1000 * MB
    write(place / "proc/self/cgroup", "0::/user.slice\n")
    assert found(place) == 1000 * MB


def test_nothing_is_known_where_nothing_says_so(tmp_path: Path) -> None:
    assert found(tmp_path) is None


def test_the_tightest_group_counts_with_the_cache_that_it_gives_up(place: Path) -> None:
    write(place / "proc/self/cgroup", "0::/a.slice/b.service\n")
    group(place / "groups/a.slice/b.service", "max", 300 * MB, 0)
    group(place / "groups/a.slice", 500 * MB, 300 * MB, 40 * MB)
    assert found(place) == 240 * MB
    group(place / "groups/a.slice/b.service", 350 * MB, 300 * MB, 50 * MB)
    assert found(place) == 100 * MB
    group(place / "groups/a.slice/b.service", 250 * MB, 300 * MB, 0)
    assert found(place) == 0


def test_the_first_version_of_groups_is_read_too(place: Path) -> None:
    write(place / "proc/self/cgroup", "4:cpu,memory:/docker/of-the-host\n0::/\n")
    group(place / "groups/memory", 400 * MB, 100 * MB, 30 * MB, v1=True)
    assert found(place) == 330 * MB
    group(place / "groups/memory/docker/of-the-host", (1 << 63) - 4096, 100 * MB, 0, v1=True)
    assert found(place) == 330 * MB


def test_this_machine_says_something() -> None:
    assert (available_bytes() or 0) > 64 * MB
