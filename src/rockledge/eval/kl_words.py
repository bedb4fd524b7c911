"""What a mean KL divergence is like in use: the table of docs/precision.md, which says where it is from."""

from math import inf

# Nats a token below which the words hold.
WORDS: tuple[tuple[float, str], ...] = (
    (0.01, "the float model for all practical purposes"),
    (0.05, "good; answers differ in wording"),
    (0.2, "usable; facts and long chains of reasoning begin to slip"),
    (inf, "a different model; take more bits or a smaller model"),
)


def kl_in_words(nats: float) -> str:
    """The words for a mean KL divergence in nats a token."""
    return next(words for below, words in WORDS if nats < below or below == inf)
