"""Checkpoints that went wrong once: sliding windows, and the context that they leave."""

from pathlib import Path
from typing import Any

import pytest
from tests.model.opened_cases import CASES, agree, changed, refused


def test_a_window_that_no_layer_uses_does_not_cut_the_context() -> None:
    checkpoint = agree(CASES / "f15_window")
    assert checkpoint.config.context == 1024
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    ("case", "config", "without", "windows"),
    [
        ("f15_window", {"max_window_layers": 0}, ("layer_types",), (64,)),
        ("f15_window", {"max_window_layers": 0}, (), ()),  # layer_types decides
        ("f15_window", {"max_window_layers": 0, "use_sliding_window": False}, ("layer_types",), ()),
        ("f15_window", {}, ("layer_types", "max_window_layers"), ()),  # 28 layers without one by default
        ("f16_both", {"sliding_window": 64, "use_sliding_window": True}, ("rope_scaling",), ()),
    ],
)
def test_windows_are_those_of_the_family(
    case: str, config: dict[str, Any], without: tuple[str, ...], windows: tuple[int, ...], tmp_path: Path
) -> None:
    found = agree(changed(case, tmp_path, config, without=without)).config
    assert (found.windows, found.context) == (windows, 1024)


@pytest.mark.parametrize(
    ("layer_types", "windows"), [(None, (64,)), (["full_attention"], ()), (["sliding_attention"], (64,))]
)
def test_mistral_has_its_window_in_every_layer_unless_their_types_say_otherwise(
    layer_types: list[str] | None, windows: tuple[int, ...], tmp_path: Path
) -> None:
    changes = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 64}
    if layer_types is not None:
        changes["layer_types"] = layer_types
    path = changed("f16_both", tmp_path, changes, without=("rope_scaling", "mlp_bias", "attention_bias"))
    config = agree(path).config
    assert (config.windows, config.context) == (windows, 1024)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"layer_types": ["sliding_attention"], "use_sliding_window": False}, "no sliding_window is in use"),
        ({"layer_types": ["chunked_attention"]}, "layers of type 'chunked_attention'"),
        ({"layer_types": ["full_attention"] * 2}, "not a list of 1 names"),
        ({"layer_types": 3}, "not a list of 1 names"),
    ],
)
def test_layer_types_that_make_no_sense_are_refused(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    refused(changed("f15_window", tmp_path, config), said)
