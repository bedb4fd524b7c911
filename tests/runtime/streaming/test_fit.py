"""Which pieces stay in memory."""

from hypothesis import given
from hypothesis import strategies as st

from rockledge.artifact.uncached import BLOCK
from rockledge.board.streaming import RING_PIECES
from rockledge.runtime.streaming.fit import fit, least_ring

SIZES = st.lists(st.integers(1, 50).map(lambda blocks: blocks * BLOCK), min_size=1, max_size=60)


@given(SIZES, st.floats(0, 1.5))
def test_what_stays_and_the_ring_fit(sizes: list[int], share: float) -> None:
    room = max(least_ring(sizes), int(share * sum(sizes)))
    chosen = fit(sizes, room)
    assert chosen.bytes <= room
    assert chosen.kept == sum(size for size, stays in zip(sizes, chosen.resident, strict=True) if stays)
    assert chosen.kept + chosen.streamed == sum(sizes)
    if chosen.streamed:
        assert least_ring(sizes) <= chosen.ring <= RING_PIECES * max(sizes)
        # All of the room is used but for less than a piece.
        assert room - chosen.bytes < max(sizes) + BLOCK
    else:
        assert chosen.ring == 0


@given(SIZES, st.floats(0.1, 0.9))
def test_what_stays_is_spread_over_the_step(sizes: list[int], share: float) -> None:
    """Wherever a step is, of what it has come to about the same share was in memory."""
    room = max(least_ring(sizes), int(share * sum(sizes)))
    chosen = fit(sizes, room)
    if not chosen.streamed:
        return
    passed = kept = 0
    for size, stays in zip(sizes, chosen.resident, strict=True):
        passed, kept = passed + size, kept + size * stays
        wanted = (room - chosen.ring) * passed / sum(sizes)
        assert wanted - max(sizes) < kept <= wanted
