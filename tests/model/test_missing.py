"""What is said of architectures that are not supported: what they need, by name and by telling keys."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import transformers

from rockledge.errors import CheckpointError
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.hf_config import config_from_hf


@pytest.mark.parametrize(
    ("model_type", "needs"),
    [
        ("qwen3_next", "a recurrent body: gated delta net, gates on the output of attention and experts"),
        ("qwen3_5_text", "a recurrent body: gated delta net and gates on the output of attention;"),
        ("mamba2", "a recurrent body: Mamba 2;"),
        ("lfm2", "short convolutions;"),
        ("mixtral", "experts;"),
        ("gpt_oss", "experts and attention sinks;"),
        ("deepseek_v3", "latent attention .* and experts;"),
        ("gemma3n_text", "embeddings that enter every layer;"),
        ("gpt2", "norms that subtract the mean, a feed-forward body without a gate and learned positions;"),
        ("falcon", ".* side by side in one branch;"),
        ("t5", "an encoder;"),
        ("olmo3", "a declaration of its family"),
        ("glm4", "rotary pairs of neighbours;"),
    ],
)
def test_what_transformers_has_and_we_lack_is_named(model_type: str, needs: str) -> None:
    config = transformers.CONFIG_MAPPING[model_type]().to_dict()
    with pytest.raises(CheckpointError, match=f"not supported, which needs {needs}"):
        config_from_hf(config)


def test_what_is_missing_counts_before_how_it_is_stored() -> None:
    stored = {"model_type": "deepseek_v3", "quantization_config": {"quant_method": "fp8"}}
    with pytest.raises(CheckpointError, match=r"needs latent attention .* and experts;"):
        config_from_hf(stored)


@pytest.mark.parametrize(
    ("keys", "needs"),
    [
        ({"num_local_experts": 8}, ", which needs experts;"),
        ({"linear_num_value_heads": 32, "num_experts": 64}, "gated delta net and experts;"),
        ({"conv_L_cache": 3}, ", which needs short convolutions;"),
        ({"text_config": {"kv_lora_rank": 512}}, ", which needs latent attention .*;"),
        ({"text_config": {"model_type": "qwen3_5_text"}}, "gated delta net"),
        ({"num_experts": 0}, "'tomorrow' is not supported; supported are"),
        ({"num_experts": [2]}, ", which needs experts;"),
    ],
)
def test_keys_tell_of_an_architecture_that_nobody_knows(keys: dict[str, Any], needs: str) -> None:
    with pytest.raises(CheckpointError, match=needs):
        config_from_hf({"model_type": "tomorrow", **keys})


@pytest.mark.parametrize(
    ("architecture", "metadata", "needs"),
    [
        ("qwen35", {}, "gated delta net and gates"),
        ("tomorrow", {"tomorrow.ssm.state_size": 16}, ", which needs a recurrent body: a state space;"),
        ("tomorrow", {"tomorrow.expert_count": 8}, ", which needs experts;"),
        ("tomorrow", {"other.expert_count": 8}, "'tomorrow' is not supported; supported are llama"),
    ],
)
def test_gguf_files_tell_too(architecture: str, metadata: dict[str, int], needs: str, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", architecture)
    for key, value in metadata.items():
        writer.add_uint32(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=needs):
        open_checkpoint(tmp_path / "a.gguf")
