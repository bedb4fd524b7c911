"""The family tables: they name exactly the parameters that transformers models have."""

import pytest
from tests.model.checkpoints import MODELS, random_model

from rockledge.model.family import stored_tensors
from rockledge.model.hf_config import config_from_hf


@pytest.mark.parametrize("name", MODELS)
def test_tensors_and_shapes_are_those_of_transformers(name: str) -> None:
    model = random_model(name)
    config = config_from_hf({**model.config.to_dict(), "architectures": [type(model).__name__]})
    declared = {t.hf: t.shape for t in stored_tensors(config)}
    assert declared == {key: tuple(values.shape) for key, values in model.named_parameters()}


def test_names_are_in_the_order_of_the_forward_pass() -> None:
    config = config_from_hf(
        {"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12, "vocab_size": 5,
         "num_hidden_layers": 2, "num_attention_heads": 2}
    )  # fmt: skip
    names = [t.name for t in stored_tensors(config)]
    assert names[0] == "embed"
    assert names[-2:] == ["final_norm", "head"]
    layers = [int(name.split(".")[1]) for name in names if name.startswith("layers.")]
    assert layers == sorted(layers)
