"""Shapes for a target: within it and near it, and the nearest that can be made where none is."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import BudgetError, UsageError
from rockledge.model.config import ModelConfig
from rockledge.model.known_shapes import KNOWN_SHAPES
from rockledge.pruning.choice import candidates
from rockledge.pruning.request import request_of
from rockledge.pruning.shape import body_parameters, parameters, pruned_config, shape_of
from rockledge.pruning.targets import TOLERANCE, Space, Target, shapes_with

NAMES = ("smollm2-135m", "llama-3-8b", "qwen3-8b", "gemma-3-1b", "phi-4-mini")


@settings(max_examples=8)
@given(st.sampled_from(NAMES), st.floats(0.35, 0.95))
def test_shapes_are_within_a_body_and_near_it(name: str, share: float) -> None:
    config = KNOWN_SHAPES[name].config
    most = int(share * body_parameters(config))
    tried = shapes_with(Space(config), Target(most, body=True))
    assert len({one.shape for one in tried}) == len(tried) >= 2
    for one in tried:
        made = pruned_config(config, one.shape)
        assert (1 - TOLERANCE) * most <= body_parameters(made) <= most
        assert one.shape.hidden % 32 == 0
        assert one.shape.ffn % 32 == 0
        assert made.heads % made.kv_heads == made.hidden % made.heads == 0


def test_fixed_sizes_and_directions_hold() -> None:
    config = KNOWN_SHAPES["llama-3-8b"].config
    for one in candidates(config, request_of({"target_params": "4.5b", "hidden": 3072, "by": "width"})):
        assert (one.shape.hidden, one.shape.layers) == (3072, 32)
        assert parameters(config, one.shape) <= 4.5e9
    (only,) = candidates(config, request_of({"target_params": "4.5b", "by": "depth"}))
    assert replace(only.shape, layers=32, ffn=14336) == shape_of(config)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("asked", "fixed"),
    [
        ({"target_params": "1m"}, ()),
        ({"target_params": "50m", "by": "both"}, ()),
        ({"body": 0.0001}, ()),
        ({"body": 0.0001, "by": "width"}, ()),
        ({"body": 0.01, "by": "depth"}, ("hidden", "ffn", "heads")),
        ({"body": 0.551}, ("hidden", "ffn", "heads")),
        ({"target_params": "0.79b"}, ("hidden", "ffn", "heads")),
    ],
)
def test_the_nearest_that_can_be_made_is_one_that_is(
    name: str, asked: dict[str, Any], fixed: tuple[str, ...]
) -> None:
    config = KNOWN_SHAPES[name].config
    asked = asked | {axis: getattr(config, axis) for axis in fixed}
    said = refusal(config, asked)
    if not said or "to begin with; give a smaller target" in said:
        return
    (flag,) = re.findall(r"give --(target-params|body) (\S+?)(?:,| or more,)", said)
    key, number = flag[0].replace("-", "_"), (float if flag[0] == "body" else int)(flag[1])
    assert key in asked
    assert not refusal(config, {**asked, key: number})


def refusal(config: ModelConfig, asked: dict[str, Any]) -> str:
    """Why there are no shapes; empty where there are some."""
    try:
        return "" if candidates(config, request_of(asked)) else "nothing"
    except (BudgetError, UsageError) as error:
        return str(error)


def test_the_nearest_is_named_with_its_shape() -> None:
    config = KNOWN_SHAPES["llama-3-8b"].config
    with pytest.raises(BudgetError, match="the smallest that can be made has 779"):
        candidates(config, request_of({"target_params": "50m", "by": "width"}))
    fixed = {"hidden": 4096, "ffn": 14336, "heads": 32, "target_params": "4.09b"}  # between 13 and 14 layers
    with pytest.raises(BudgetError, match=r"nearest that has fewer has 3\.89b \(13 layers"):
        candidates(config, request_of(fixed))
    with pytest.raises(UsageError, match=r"there are only 8\.03b to begin with"):
        candidates(config, request_of({"target_params": "9b"}))


def test_a_board_that_takes_the_teacher_and_one_that_takes_nothing() -> None:
    config = KNOWN_SHAPES["llama-3-8b"].config
    asked = request_of({"fit": "rk3588-8gb", "decode_tok_s": 8})
    with pytest.raises(UsageError, match="the teacher itself is fast and small enough"):
        candidates(config, asked, lambda made: True)
    with pytest.raises(BudgetError, match="fits rk3588-8gb at 8 tok/s"):
        candidates(config, asked, lambda made: False)
    wanted = 5_000_000_000
    for one in candidates(config, asked, lambda made: body_parameters(made) <= wanted):
        assert 0.95 * wanted <= body_parameters(pruned_config(config, one.shape)) <= wanted


def test_a_model_without_a_head_is_refused() -> None:
    config = replace(KNOWN_SHAPES["qwen3-0.6b"].config, headless=True, tied=True)
    with pytest.raises(UsageError, match="has no language head"):
        candidates(config, request_of({"layers": 8}))
