"""What a prompt takes of each term, counted by hand."""

from dataclasses import replace

import pytest

from bench.prefill_time import ENGINES, TERMS, PrefillConstants, streamed
from bench.published_prefill import Prompt

PROMPT = Prompt(
    "model", "RKLLM", "somebody", "w8a8", 64, 1.0, 2, ((2048, 4096), (14336, 10)), {}, 1000, 4, bits=8
)


def test_weights_are_read_again_where_rows_do_not_fit() -> None:
    """11 of 12 banks of 32 KiB are 360,448 bytes: 176 rows of 2,048 inputs, 25 of 14,336."""
    assert streamed(PROMPT) == 1000 + 2 * (2048 * 4096 + 14336 * 10 * 3)
    assert streamed(replace(PROMPT, tokens=1)) == 1000 + 2 * (2048 * 4096 + 14336 * 10)
    assert streamed(replace(PROMPT, tokens=177)) == 1000 + 2 * (2048 * 4096 * 2 + 14336 * 10 * 8)
    assert streamed(replace(PROMPT, bits=4)) == streamed(PROMPT) / 2


def test_activations_and_partial_sums() -> None:
    assert TERMS["activation_s"](PROMPT) == 64 * 2 * (2048 + 4096 + 14336 + 10)
    assert TERMS["partial_s"](PROMPT) == 0
    grouped = replace(PROMPT, group=128, weights={"w8a8": 2 * 128 * 1000})
    assert TERMS["partial_s"](grouped) == 64 * 2000


def test_every_product_belongs_to_one_kernel() -> None:
    weights = {"F16": 1, "Q6_K": 10, "Q4_0 in fours": 100, "Q4_K in fours": 1000, "Q6_K in fours": 10000}
    one = replace(PROMPT, tokens=1, weights=weights)
    counted = {name: TERMS[name](one) for name in ("row_mac_s", "fours_mac_s", "k_fours_mac_s")}
    assert counted == {"row_mac_s": 21, "fours_mac_s": 100, "k_fours_mac_s": 21000}
    npu = replace(PROMPT, tokens=1, weights={"16 bits": 1, "8 bits": 10, "4 bits": 100})
    assert (TERMS["mac_byte_s"](npu), TERMS["int4_mac_s"](npu)) == (12, 100)


def test_seconds_are_a_sum() -> None:
    constants = PrefillConstants({"layer_row_s": 1e-3, "score_s": 1e-6})
    assert constants.seconds(PROMPT) == pytest.approx(64 * 2 * 1e-3 + 2 * 4 * 64 * 64 / 2 * 1e-6)
    assert constants.tok_s(PROMPT) == pytest.approx(64 / constants.seconds(PROMPT))


def test_at_most_four_constants_are_fitted() -> None:
    for engine in ENGINES.values():
        assert len(engine.fitted) <= 4
        assert set(engine.fitted) | set(engine.known) <= set(TERMS)
        assert not set(engine.fitted) & set(engine.known)


def test_facts_are_the_published_ones() -> None:
    """Three cores at 1.8 Top/s are 2.7e12 products a second; the NPU reads 28.5 GB/s."""
    known = ENGINES["RKLLM"].known
    assert 1 / known["mac_s"].seconds == pytest.approx(2.7e12, rel=0.01)
    assert 1 / known["byte_s"].seconds == pytest.approx(28.5e9)
    assert all(fact.source for fact in known.values())
