"""Facts carry unit, source and confidence; measured ones replace them without losing the unit."""

import re

import pytest

from rockledge.board.boards import BOARDS, find_board
from rockledge.board.rk3588 import FACTS
from rockledge.errors import UsageError


def test_every_fact_says_where_it_is_from() -> None:
    for name, fact in FACTS.items():
        assert re.fullmatch(r"[a-z0-9_]+", name)
        assert fact.value > 0, name
        assert fact.unit, name
        assert len(fact.source) > 8, name
        assert fact.confidence != "measured here", "the table ships without measurements of our own"


def test_physical_order_of_the_bandwidths() -> None:
    """What is read can not exceed what the memory delivers, and two readers beat one."""
    value = {name: fact.value for name, fact in FACTS.items()}
    assert value["cpu_read_bandwidth"] < value["npu_read_bandwidth"] < value["cpu_and_npu_read_bandwidth"]
    assert value["cpu_and_npu_read_bandwidth"] < value["dram_theoretical_lpddr4x"]
    assert value["npu_buffers_most"] < value["npu_address_window"]


def test_measurement_replaces_a_fact_and_nothing_else() -> None:
    board = BOARDS["rk3588-8gb"]
    fresh = board.measured({"cpu_read_bandwidth": 21e9}, "our board 1")
    assert fresh.value("cpu_read_bandwidth") == 21e9
    assert fresh.facts["cpu_read_bandwidth"].unit == "B/s"
    assert fresh.facts["cpu_read_bandwidth"].confidence == "measured here"
    assert fresh.value("cpu_hz") == board.value("cpu_hz")
    assert board.value("cpu_read_bandwidth") == 24e9


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="cpu_read_bandwidth"):
        BOARDS["rk3588-8gb"].measured({"bandwith": 1.0}, "typo")
    with pytest.raises(UsageError, match="rk3588-8gb"):
        find_board("rk3399")
    assert find_board("rk3588-16gb").ram_bytes == 16 * 2**30
