"""Which versions of the vendor's driver are left alone: those with published reports of boards that hang."""

from types import SimpleNamespace

import pytest

from rockledge.runtime.offload.driver_versions import REPORTS, known_problem


def device(driver: str, *version: int) -> SimpleNamespace:
    return SimpleNamespace(driver=driver, version=version)


@pytest.mark.parametrize("version", [(0, 9, 2), (0, 9, 3), (0, 9, 5)])
def test_versions_with_reports_are_named_with_their_sources(version: tuple[int, ...]) -> None:
    reason = known_problem(device("rknpu", *version))
    assert reason is not None
    assert ".".join(map(str, version)) in reason
    assert "0.9.6" in reason
    assert all(report.source in reason for report in REPORTS)


@pytest.mark.parametrize(
    "about", [device("rknpu", 0, 9, 6), device("rknpu", 0, 9, 8), device("rocket", 0, 0, 0)]
)
def test_later_versions_and_mainline_are_not(about: SimpleNamespace) -> None:
    assert known_problem(about) is None
