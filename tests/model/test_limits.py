"""Sizes that the runtime does not run are refused when a model is opened, by their names."""

from typing import Any

import pytest

from rockledge.errors import CheckpointError
from rockledge.model.hf_config import config_from_hf
from rockledge.model.limits import LARGEST, MOST_INPUTS

SMALL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 80,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "head_dim": 16,
}  # fmt: skip


def test_the_largest_sizes_are_accepted() -> None:
    sizes = {"hidden_size": MOST_INPUTS, "intermediate_size": MOST_INPUTS, "head_dim": LARGEST["head_dim"]}
    heads = MOST_INPUTS // LARGEST["head_dim"]
    config = config_from_hf({**SMALL, **sizes, "num_attention_heads": heads, "num_key_value_heads": heads})
    assert config.heads * config.head_dim == config.ffn == config.hidden


@pytest.mark.parametrize(
    "change, named",
    [
        ({"hidden_size": MOST_INPUTS + 1}, f"hidden is {MOST_INPUTS + 1}"),
        ({"intermediate_size": MOST_INPUTS + 32}, f"ffn is {MOST_INPUTS + 32}"),
        ({"head_dim": LARGEST["head_dim"] + 2}, f"head_dim is {LARGEST['head_dim'] + 2}"),
        ({"head_dim": 25}, "even number"),
        ({"head_dim": 512, "num_attention_heads": 258}, "258 heads of 512 have 132096 values together"),
        ({"num_hidden_layers": 1025}, "layers is 1025"),
    ],
)
def test_larger_ones_are_refused(change: dict[str, int], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        config_from_hf({**SMALL, **change})
