"""Windows of time: never more than the limit in any of them."""

from hypothesis import given
from hypothesis import strategies as st

from rockledge.serve.safety.key_use import SLOTS, Window

EVENTS = st.lists(st.tuples(st.floats(0, 20), st.integers(1, 5)), max_size=60)


@given(EVENTS)
def test_the_total_is_what_came_in_the_last_minute_and_at_most_a_slot_more(
    events: list[tuple[float, int]],
) -> None:
    now, seen = 0.0, list[tuple[float, int]]()
    window = Window(60.0, lambda: now)
    for wait, amount in events:
        now += wait
        window.add(amount)
        seen.append((now, amount))
        exact = sum(a for then, a in seen if now - then < 60)
        most = sum(a for then, a in seen if now - then <= 60 + 60 / SLOTS)
        assert exact <= window.total <= most


@given(EVENTS.filter(bool), st.integers(0, 20))
def test_after_the_time_it_names_there_is_room(events: list[tuple[float, int]], room: int) -> None:
    now = 0.0
    window = Window(60.0, lambda: now)
    for wait, amount in events:
        now += wait
        window.add(amount)
    had_room, wait = window.total <= room, window.seconds_until(room)
    assert had_room == (wait == 0)
    now += wait + 1e-6
    assert window.total <= room
