"""Stop strings: the same text whatever the pieces, and nothing held longer than needed."""

from hypothesis import given
from hypothesis import strategies as st

from rockledge.runtime.stops import StopMatcher

TEXT = st.text("abc", max_size=20)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


def run(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = ""
    for piece in pieces:
        text, found = matcher.push(piece)
        shown += text
        if found:
            return shown, True
    return shown + matcher.flush(), False


@given(TEXT, STOPS, st.data())
def test_any_cut_gives_the_same_text(text: str, stops: list[str], data: st.DataObject) -> None:
    ends = [
        (start + len(stop), start)
        for stop in stops
        for start in range(len(text))
        if text.startswith(stop, start)
    ]
    expected = (text[: min(ends)[1]], True) if ends else (text, False)
    pieces, rest = [], text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        pieces.append(rest[:size])
        rest = rest[size:]
    assert run(pieces, stops) == expected


@given(TEXT, STOPS)
def test_only_a_possible_beginning_is_held(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown, found = matcher.push(text)
    if not found:
        held = text[len(shown) :]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


def test_empty_stop_strings_stop_nothing() -> None:
    assert run(["ab", "c"], [""]) == ("abc", False)


def test_the_stop_string_that_ended_the_text_is_named() -> None:
    matcher = StopMatcher(["never", "ab", "bab"])
    assert matcher.push("xb") == ("x", False)
    assert matcher.found is None
    assert matcher.push("abab") == ("", True)
    assert matcher.found == "bab"
