"""The keys and values that prompts read, counted by hand."""

from bench.attention import read_by_prompts


def test_rows_that_walk_together_read_an_eighth() -> None:
    """A position of a layer of the 8B: 8 heads of 128 codes and a scale, keys and values."""
    entry, layers = 2 * 8 * (128 + 4), 32
    together = sum(end for end in range(8, 8193, 8)) * entry * layers
    alone = sum(range(1, 8193)) * entry * layers
    *_, tokens, eight, one = read_by_prompts()[-1].split()
    assert (tokens, eight, one) == ("8,192", f"{together / 1e9:.1f}", f"{alone / 1e9:.1f}")
