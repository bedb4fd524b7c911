"""SmolLM3 against transformers: layers without rotary turns."""

from pathlib import Path
from typing import Any

import pytest
from tests.model.family_oracle import compare, gguf_twin, random_twin, read_back

from rockledge.errors import CheckpointError
from rockledge.model.hf_config import config_from_hf


@pytest.mark.parametrize(
    ("changes", "unturned", "windows"),
    [
        ({"num_hidden_layers": 5}, (3,), ()),
        ({"no_rope_layers": [0, 1, 0]}, (0, 2), ()),
        ({"no_rope_layer_interval": 2}, (1,), ()),
        ({"no_rope_layers": [1, 0, 1], "use_sliding_window": True, "sliding_window": 8}, (1,), (0, 8, 0)),
        ({"attention_bias": True, "mlp_bias": True}, (), ()),
    ],
)
def test_smollm3(
    changes: dict[str, Any], unturned: tuple[int, ...], windows: tuple[int, ...], tmp_path: Path
) -> None:
    model = random_twin("SmolLM3", **{"num_hidden_layers": 3, **changes})
    config = read_back(model, tmp_path).config
    assert (config.unturned, config.windows) == (unturned, windows)


def test_smollm3_in_gguf(tmp_path: Path) -> None:
    model = random_twin("SmolLM3", num_hidden_layers=5)
    metadata = {"rope.freq_base": 2e6}
    compare(gguf_twin(tmp_path / "a.gguf", model, "smollm3", metadata, interleaved=True), model)


@pytest.mark.parametrize("layers", [[1], [1, "0"], 3])
def test_a_list_of_another_length_is_refused(layers: object) -> None:
    stored = {**random_twin("SmolLM3").config.to_dict(), "no_rope_layers": layers}
    with pytest.raises(CheckpointError, match=r"no_rope_layers in config.json is not a list of 2 whole"):
        config_from_hf(stored)
