"""Plans: what they say follows from the facts, and what they advise is true."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.board.boards import BOARDS, find_board
from rockledge.board.facts import End
from rockledge.board.memory import weight_budget
from rockledge.errors import UsageError
from rockledge.model.hf_config import config_from_hf
from rockledge.model.known_shapes import KNOWN_SHAPES
from rockledge.planning import plan as planning
from rockledge.planning.advice import advice
from rockledge.planning.fit import fits, least_bits, parameters
from rockledge.planning.plan import Plan
from rockledge.planning.ranges import Range, over
from rockledge.quantization.request import DEFAULT_BITS
from rockledge.runtime.offload.prompt_time import weight_bytes


def planned(model: str, board: str = "rk3588-8gb", context: int = 8192, streams: int = 1) -> Plan:
    return Plan(model, KNOWN_SHAPES[model].config, find_board(board), context, streams)


@pytest.fixture(scope="module")
def large() -> Plan:
    return planned("llama-3-8b")


def test_the_default_is_that_of_quantize() -> None:
    assert planning.DEFAULT_BITS == DEFAULT_BITS


def test_decode_by_hand(large: Plan) -> None:
    """Bytes of all matrices but the gathered embedding, and of the cache, at 24 GB/s (18.2 to 25)."""
    weights = 32 * 4096 * (6144 + 4096 + 28672 + 14336) + 128256 * 4096
    rows = 32 * (6144 + 4096 + 28672 + 4096) + 128256
    read = weights * 136 // 256 + 4 * rows + 8192 * 32 * 8 * 2 * (128 + 4)
    found = large.speed.decode(8192)
    assert found.likely == pytest.approx(24e9 / read)
    assert found.low == pytest.approx(18.2e9 / read)
    assert found.high == pytest.approx(25e9 / read)


def test_every_range_is_in_order(large: Plan) -> None:
    found = [one for precision in large.precisions for one in (precision.decode, precision.prefill) if one]
    found += [*large.energy().values(), large.speed.first_token(1000), large.speed.first_token(1000, 900)]
    assert len(found) == 8
    for one in found:
        assert 0 < one.low <= one.likely <= one.high


@pytest.mark.parametrize(
    "model, board, context",
    [("smollm2-135m", "rk3588-8gb-slow", 33), ("llama-3.2-1b", "rk3588-16gb-lpddr4x", 64),
     ("qwen3-0.6b", "rk3588-4gb-lpddr5", 512), ("gemma-3-1b", "rk3588-32gb", 900),
     ("smollm2-135m", "rpi5-2gb", 1), ("llama-3.2-1b", "rk3588-4gb", 300)],
)  # fmt: skip
def test_ranges_of_short_prompts_are_in_order(model: str, board: str, context: int) -> None:
    """The ends take the steps of the likely one: 33 tokens are not padded to 128 there only."""
    plan = planned(model, board, context)
    rest = plan.prompt_tokens - plan.cached_tokens
    found = [one.prefill for one in plan.precisions if one.prefill]
    found += [plan.speed.first_token(plan.prompt_tokens, kept) for kept in (0, plan.prompt_tokens - rest)]
    for one in found:
        assert 0 < one.low <= one.likely <= one.high
        assert one.low < one.high


def test_precisions(large: Plan) -> None:
    three, four, eight = large.precisions
    assert [one.bits for one in large.precisions] == [3, 4, 8]
    assert three.weights < four.weights < eight.weights
    assert (three.fits, four.fits, eight.fits) == (True, True, False)
    assert eight.decode is None
    assert eight.prefill is None
    assert large.width == 4
    assert large.fits


def test_the_npu_is_used_in_part(large: Plan) -> None:
    use = large.utilisation()
    assert set(use) == {64, 128, 256, 512, 1024, 2048, 4096}
    assert all(0 < share < 1 for share in use.values())
    assert use[512] > use[64]  # padding and weights that are read for few tokens
    # By hand: products of 512 tokens in all layers over three cores at 1 GHz.
    macs = 512 * 32 * 4096 * (6144 + 4096 + 28672 + 14336)
    assert use[512] == pytest.approx(macs / (3 * 1024e9 * large.speed.prompt(512).seconds))


def test_without_an_npu() -> None:
    pi = planned("llama-3.2-3b", "rpi5-8gb")
    assert set(pi.utilisation().values()) == {0.0}
    assert pi.power_basis == "W at the wall"
    assert pi.speed.prompts().plan is None
    prefill, decode = pi.speed.prefill(1000), pi.speed.decode(0)
    # geerlingguy/sbc-reviews#21: 4.88 tok/s of Ollama's 4 bits, a file of 2.02 GB.
    published = 4.88 * 2.02e9 / pi.speed.decoding(0).bytes_per_token
    assert decode.low < published < decode.high
    assert prefill.likely > decode.likely


def test_a_slow_board_decodes_at_half_the_speed(large: Plan) -> None:
    slow = planned("llama-3-8b", "rk3588-8gb-slow")
    assert slow.speed.decode(8192).likely == pytest.approx(large.speed.decode(8192).likely / 2)
    assert slow.speed.prefill(1000).likely < large.speed.prefill(1000).likely


def test_streams_share_the_weights(large: Plan) -> None:
    one, four = (large.speed.decoding(1024, n) for n in (1, 4))
    assert one.decode_tok_s > four.decode_tok_s > one.decode_tok_s / 2
    assert four.bytes_per_token < 2 * one.bytes_per_token


def test_a_cached_prefix_saves_time(large: Plan) -> None:
    cold, cached = large.speed.first_token(1000), large.speed.first_token(1000, 900)
    assert cached.likely < cold.likely / 3
    # A hundred tokens after 900 take longer than a hundred tokens alone.
    assert cached.likely > large.speed.first_token(100).likely


def test_energy_is_power_over_speed(large: Plan) -> None:
    """6.2 to 8.0 W over idle on the CPU, 2.8 to 4.0 W on the NPU (invisiofficial/rk-llama.cpp)."""
    decode, energy = large.speed.decode(8192), large.energy()
    assert energy["decode"].likely == pytest.approx(7.0 / decode.likely)
    assert energy["decode"].low == pytest.approx(6.2 / decode.high)
    assert energy["decode"].high == pytest.approx(8.0 / decode.low)
    assert energy["prefill"].likely == pytest.approx(3.4 / large.speed.prefill(1000).likely)


@pytest.mark.parametrize(
    "model, board, context, streams",
    [("llama-3.1-8b", "rk3588-8gb", 45_000, 1), ("llama-3.1-8b", "rk3588-8gb", 8192, 6),
     ("llama-3-70b", "rk3588-32gb", 8192, 1), ("llama-3-8b", "rk3588-4gb", 8192, 1),
     ("qwen3-14b", "rpi5-8gb", 4096, 1), ("llama-2-7b", "rk3588-4gb", 4096, 1)],
)  # fmt: skip
def test_advice_is_true(model: str, board: str, context: int, streams: int) -> None:
    plan = planned(model, board, context, streams)
    assert not plan.fits
    found = advice(plan)
    config, tokens = plan.config, plan.tokens
    if found.bits is None:
        assert not plan.room.fits
    else:
        assert found.bits < DEFAULT_BITS
        assert plan.room.fits
        more = int((found.bits + 0.02) * parameters(config) / 8)
        assert not fits(plan.board, config, more, tokens)
    if found.context is not None:
        assert 0 < found.context < context
        assert fits(plan.board, config, plan.default_bytes, found.context * streams)
    if found.streams is not None:
        assert 0 < found.streams < streams
        assert fits(plan.board, config, plan.default_bytes, context * found.streams)
    if found.narrow_context is not None:
        assert found.bits is found.context is None
        narrow = weight_bytes(config, 2)
        assert Plan(model, config, plan.board, found.narrow_context, streams).budget is not None
        assert not fits(plan.board, config, narrow, (found.narrow_context + 512) * streams)
    if found.streaming is not None:
        assert found.streaming.read > 0
        assert found.streaming.resident + found.streaming.ring < plan.room.available
    assert found.model is not None
    assert parameters(KNOWN_SHAPES[found.model].config) < parameters(config)
    assert planned(found.model, board, context, streams).fits


def test_nothing_fits_two_gigabytes() -> None:
    found = advice(planned("smollm2-135m", "rpi5-2gb", 8192, 32))
    assert found.bits is None
    assert found.model is None
    assert 0 < (found.context or 0) < 8192


def test_speeds_are_those_of_a_width_that_fits() -> None:
    """Between the bits of two widths: a budget of 3.1 to 3.25 takes two-bit codes for an upper bound."""
    plan = next(
        plan
        for context in range(49_000, 60_000, 500)
        if (plan := planned("llama-3.1-8b", context=context)).budget is not None and plan.budget < 3.2
    )
    assert plan.width == 2
    assert plan.speed.prompt(64).seconds > 0


def test_a_model_without_a_head_writes_nothing() -> None:
    shape = replace(KNOWN_SHAPES["qwen3-0.6b"].config, headless=True)
    plan = Plan("an embedder", shape, find_board("rk3588-8gb"), 4096, 1)
    assert [one.decode for one in plan.precisions] == [None] * 3
    assert all(one.prefill is not None for one in plan.precisions)
    assert set(plan.energy()) == {"prefill"}


def test_contexts_and_streams_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="made for a context of 8192 tokens, 8193 are more"):
        planned("llama-3-8b", context=8193)
    with pytest.raises(UsageError, match="33 streams, expected at most the 32"):
        planned("llama-3-8b", streams=33)


def test_ranges_put_ends_in_order() -> None:
    times: dict[End, float] = {"low": 3.0, "likely": 2.0, "high": 1.0}
    assert over(times.__getitem__) == Range(1.0, 2.0, 3.0)
    assert Range(1.0, 2.0, 4.0).map(lambda value: 1 / value) == Range(0.25, 0.5, 1.0)


SHAPES = st.fixed_dictionaries(
    {
        "hidden_size": st.sampled_from([64, 576, 2048, 4096, 8192]),
        "intermediate_size": st.sampled_from([128, 1536, 8192, 28672]),
        "num_hidden_layers": st.sampled_from([1, 16, 48, 80]),
        "num_attention_heads": st.sampled_from([8, 32, 64]),
        "num_key_value_heads": st.sampled_from([1, 2, 8]),
        "head_dim": st.sampled_from([64, 96, 128]),
        "vocab_size": st.sampled_from([256, 32000, 262144]),
        "max_position_embeddings": st.sampled_from([33, 8192, 131072]),
        "tie_word_embeddings": st.booleans(),
    }
)
"""Keys of a Llama's config.json."""


@settings(max_examples=40, deadline=None)
@given(
    SHAPES,
    st.sampled_from([name for name, board in BOARDS.items() if not board.chip.refused]),
    st.integers(1, 131072),
    st.integers(1, 32),
)
def test_what_is_proposed_fits_when_it_is_planned(
    shape: dict[str, Any], board: str, context: int, streams: int
) -> None:
    config, on = config_from_hf({"model_type": "llama", **shape}), find_board(board)
    context = min(context, config.context)
    plan = Plan("random", config, on, context, streams)
    if plan.fits:
        assert weight_budget(on, config, plan.tokens) >= plan.default_bytes
        return
    found = advice(plan)
    if found.bits is not None:
        written = int(float(f"{found.bits:.2f}") * parameters(config) / 8)
        assert least_bits(config) <= found.bits
        assert fits(on, config, written, plan.tokens)
    if found.context is not None:
        assert Plan("random", config, on, found.context, streams).fits
    if found.narrow_context is not None:
        assert Plan("random", config, on, found.narrow_context, streams).budget is not None
    if found.streams is not None:
        assert found.streams < streams
        assert Plan("random", config, on, context, found.streams).fits
    if found.model is not None:
        assert Plan("smaller", KNOWN_SHAPES[found.model].config, on, context, streams).fits
