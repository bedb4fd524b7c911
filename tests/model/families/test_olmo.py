"""OLMo 2 against transformers, in both formats."""

from pathlib import Path

import pytest
from tests.model.family_oracle import compare, gguf_twin, random_twin, read_back

from rockledge.errors import CheckpointError
from rockledge.model.hf_config import config_from_hf


@pytest.mark.parametrize("bias", [False, True])
def test_olmo2(bias: bool, tmp_path: Path) -> None:
    config = read_back(random_twin("Olmo2", attention_bias=bias), tmp_path).config
    assert (config.branch_norms, config.qk_norm_whole, config.norm_eps) == ("after", True, 1e-5)


def test_olmo2_in_gguf(tmp_path: Path) -> None:
    model = random_twin("Olmo2")
    compare(gguf_twin(tmp_path / "a.gguf", model, "olmo2", {"rope.freq_base": 10000.0}), model)


def test_a_window_is_not_olmo2() -> None:
    stored = {**random_twin("Olmo2").config.to_dict(), "sliding_window": 64}
    with pytest.raises(CheckpointError, match=r"sliding_window: 64, .*not supported for Olmo2ForCausalLM"):
        config_from_hf(stored)
