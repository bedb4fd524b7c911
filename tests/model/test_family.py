"""The family tables: they name exactly the parameters that transformers models have."""

import pytest
from tests.model.checkpoints import MODELS, random_model

from rockledge.model.family import FAMILIES, size, stored_tensors
from rockledge.model.hf_config import config_from_hf


@pytest.mark.parametrize("name", MODELS)
def test_tensors_and_shapes_are_those_of_transformers(name: str) -> None:
    model = random_model(name)
    config = config_from_hf({**model.config.to_dict(), "architectures": [type(model).__name__]})
    declared = {t.hf: t.shape for t in stored_tensors(config)}
    assert declared == {key: tuple(values.shape) for key, values in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_linear_names_a_norm_that_fits_its_inputs(family: object) -> None:
    assert isinstance(family, type(FAMILIES["llama"]))
    norms = {norm.role: norm for norm in family.norms}
    fed = {linear.role: linear.norm for linear in family.linears if linear.norm is not None}
    assert fed == {
        "attn.q": "attn.norm", "attn.k": "attn.norm", "attn.v": "attn.norm", "ffn.gate": "ffn.norm",
        "ffn.up": "ffn.norm", "head": "final_norm",
    }  # fmt: skip
    for linear in family.linears:
        if linear.norm is not None:
            assert norms[linear.norm].size == linear.cols
        # What rotates with the residual stream is as wide as it.
        assert (linear.cols if linear.residual == "cols" else linear.rows) == "hidden"


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
    assert size(config, "query") == 8
