"""The kernel's rule (Linux drivers/thermal/gov_step_wise.c), by hand."""

from rockledge.virtual_board.throttle import Throttle


def test_hot_and_rising_takes_the_next_clock_cooler_and_dropping_the_one_before() -> None:
    zone = Throttle((3e9, 2e9, 1e9), trip=75.0, hysteresis=2.0)
    said = [(74.0, 3e9), (75.0, 2e9), (75.0, 2e9), (76.0, 1e9), (77.0, 1e9), (75.5, 1e9)]
    said += [(74.0, 1e9), (73.0, 1e9), (72.9, 2e9), (72.9, 2e9), (72.0, 3e9), (71.0, 3e9)]
    assert [zone.poll(celsius) for celsius, _ in said] == [hz for _, hz in said]
    assert zone.events == 2
