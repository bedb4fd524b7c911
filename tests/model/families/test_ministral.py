"""Mistral Nemo and Ministral 3 against transformers, far beyond the original context."""

from pathlib import Path
from typing import Any

import pytest
import transformers
from tests.model.checkpoints import SIZES, save
from tests.model.family_oracle import compare, gguf_twin, random_twin, randomised, read_back

from rockledge.model.hf_config import config_from_hf

ROPE: dict[str, Any] = {
    "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 8,
    "max_position_embeddings": 128, "beta_fast": 32.0, "beta_slow": 1.0, "mscale_all_dim": 1.0,
    "mscale": 1.0, "llama_4_scaling_beta": 0.1,
}  # fmt: skip
OWN = {"head_dim": 32, "rope_parameters": ROPE, "max_position_embeddings": 128}


def test_mistral_nemo_has_heads_of_its_own_size(tmp_path: Path) -> None:
    config = read_back(random_twin("Mistral", head_dim=32, sliding_window=None), tmp_path).config
    assert (config.head_dim, config.hidden // config.heads) == (32, 16)


def test_ministral3_beyond_its_original_context(tmp_path: Path) -> None:
    config = read_back(random_twin("Ministral3", **OWN), tmp_path).config
    assert (config.query_growth, config.query_growth_length, config.rope_factor) == (0.1, 8, 1.0)


def test_left_out_rotary_settings_are_those_of_transformers() -> None:
    theirs = transformers.Ministral3Config().rope_parameters
    found = config_from_hf({**SIZES, "model_type": "ministral3"})
    written = config_from_hf({**SIZES, "model_type": "ministral3", "rope_parameters": theirs})
    assert found.rope_divisors == written.rope_divisors
    assert (found.query_growth, found.query_growth_length) == (0.1, 16384)


def test_ministral3_in_gguf(tmp_path: Path) -> None:
    model = random_twin("Ministral3", **{**OWN, "rope_parameters": {**ROPE, "mscale_all_dim": 0.5}})
    metadata = {
        "rope.freq_base": 1e6, "rope.scaling.type": "yarn", "rope.scaling.factor": 16.0,
        "rope.scaling.original_context_length": 8, "rope.scaling.yarn_beta_fast": 32.0,
        "rope.scaling.yarn_beta_slow": 1.0, "rope.scaling.yarn_log_multiplier": 0.5,
        "attention.temperature_scale": 0.1,
    }  # fmt: skip
    compare(gguf_twin(tmp_path / "a.gguf", model, "mistral3", metadata, interleaved=True), model)


@pytest.mark.parametrize("kind", ["Mistral", "Ministral3"])
def test_the_text_part_of_a_multimodal_checkpoint_is_read(kind: str, tmp_path: Path) -> None:
    own = OWN if kind == "Ministral3" else {"head_dim": 32, "sliding_window": None}
    text = getattr(transformers, f"{kind}Config")(**{**SIZES, **own})
    vision = transformers.PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=28,
        patch_size=14, head_dim=16,
    )  # fmt: skip
    config = transformers.Mistral3Config(text_config=text, vision_config=vision, image_token_index=79)
    model = randomised(transformers.Mistral3ForConditionalGeneration(config))
    checkpoint = compare(save(model, tmp_path / "hf"), model)
    assert checkpoint.config.family == kind.lower()
