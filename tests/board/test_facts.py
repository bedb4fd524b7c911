"""Facts carry unit, source and kind; measured ones replace them without losing the unit; none is absurd."""

import math
import re

import pytest

from rockledge.board.boards import BOARDS, any_board
from rockledge.board.facts import UNITS, Fact, check_facts
from rockledge.errors import UsageError


@pytest.mark.parametrize("name", BOARDS)
def test_every_fact_says_where_it_is_from(name: str) -> None:
    for fact_name, fact in any_board(name).facts.items():
        assert re.fullmatch(r"[a-z0-9_]+", fact_name)
        assert fact.unit in UNITS, fact_name
        assert len(fact.source) > 5, fact_name
        assert fact.kind in ("published", "derived", "fitted", "assumed"), fact_name
        if fact.spread is not None:
            assert fact.spread[0] <= fact.value <= fact.spread[1], fact_name
    for points in any_board(name).operating_points.values():
        assert points.source
        assert list(points.hz) == sorted(points.hz)


@pytest.mark.parametrize("name", ["rk3588-8gb-lpddr4x", "rk3588-8gb-lpddr5"])
def test_physical_order_of_the_bandwidths(name: str) -> None:
    """What is read can not exceed what the memory delivers, and two readers beat one."""
    value = {fact: found.value for fact, found in any_board(name).facts.items()}
    assert value["little_read_bandwidth_1_core"] < value["cpu_read_bandwidth_1_core"]
    assert value["cpu_read_bandwidth_1_core"] < value["cpu_read_bandwidth_2_cores"]
    assert value["cpu_read_bandwidth_2_cores"] <= value["cpu_read_bandwidth"] < value["npu_read_bandwidth"]
    assert value["npu_core_bandwidth"] < value["npu_bus_bandwidth"]
    assert value["npu_read_bandwidth"] < value["cpu_and_npu_read_bandwidth"] < value["dram_theoretical"]
    assert value["npu_buffers_most"] < value["npu_address_window"]


def test_a_core_reads_as_published() -> None:
    """ThomasKaiser/sbc-bench, memchr: 12,308 MB/s on a ROCK 5A, 18,492 on an Orange Pi 5."""
    assert any_board("rk3588-8gb").facts["cpu_read_bandwidth_1_core"].spread == (12.308e9, 18.492e9)


def test_ends_of_a_spread() -> None:
    rate, delay, power = (
        Fact(2e9, "B/s", "somebody", "published", spread=(1e9, 3e9)),
        Fact(2e-6, "s", "somebody", "published", spread=(1e-6, 3e-6)),
        Fact(2.0, "W", "somebody", "published", spread=(1.0, 3.0)),
    )
    assert [rate.at(end) for end in ("low", "likely", "high")] == [1e9, 2e9, 3e9]
    assert [delay.at(end) for end in ("low", "likely", "high")] == [3e-6, 2e-6, 1e-6]
    assert [power.at(end) for end in ("low", "likely", "high")] == [2.0] * 3


def test_measurement_replaces_a_fact_and_nothing_else() -> None:
    board = BOARDS["rk3588-8gb"]
    fresh = board.measured({"cpu_read_bandwidth": 21e9}, "our board 1")
    assert fresh.value("cpu_read_bandwidth") == 21e9
    assert fresh.facts["cpu_read_bandwidth"].unit == "B/s"
    assert fresh.facts["cpu_read_bandwidth"].kind == "measured here"
    assert fresh.at("low").value("cpu_read_bandwidth") == 21e9
    assert fresh.value("cpu_hz") == board.value("cpu_hz")
    assert board.value("cpu_read_bandwidth") == 24e9


@pytest.mark.parametrize("value", [-1.0, 0.0, 24.0, 1e15, math.nan, math.inf])
def test_absurd_measurements_are_refused_with_unit_and_range(value: float) -> None:
    with pytest.raises(UsageError, match=r"cpu_read_bandwidth is \S+ B/s, expected 1e\+08 to 1e\+13 B/s"):
        BOARDS["rk3588-8gb"].measured({"cpu_read_bandwidth": value}, "a typo")


def test_a_value_outside_its_spread_is_refused() -> None:
    with pytest.raises(UsageError, match="inside its spread of 2e"):
        check_facts({"rate": Fact(1e9, "B/s", "somebody", "published", spread=(2e9, 3e9))})


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="cpu_read_bandwidth"):
        BOARDS["rk3588-8gb"].measured({"bandwith": 1.0}, "typo")
