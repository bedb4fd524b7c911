"""Random models: the shapes they claim, sane numbers, readable by the libraries that will meet them."""

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from rockledge.artifact import open_artifact
from rockledge.errors import ArtifactError, UsageError
from rockledge.formats.packing import dequantize, unpack
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.family import stored_tensors
from rockledge.synth import SHAPES, model_files, shape_config, synth_artifact, synth_checkpoint


@pytest.mark.parametrize(
    "shape, billions", [("135m", 0.1345), ("1b", 1.2358), ("3b", 3.2128), ("8b", 8.0303)]
)
def test_shapes_have_the_parameters_of_the_models_they_copy(shape, billions):
    counted = sum(int(np.prod(tensor.shape)) for tensor in stored_tensors(SHAPES[shape]))
    assert counted / 1e9 == pytest.approx(billions, abs=1e-4)


def test_the_mixture_holds_every_width(tmp_path):
    artifact = open_artifact(synth_artifact("toy", tmp_path / "toy"))
    widths = {band.bits for spec in artifact.linears.values() for band in spec.bands}
    assert widths == {2, 3, 4, 8}
    assert len(artifact.linears["layers.0.attn.q"].bands) == 6


@pytest.mark.parametrize("bits", [2, 3, 4, 8, None])
def test_an_input_of_rms_one_gives_outputs_of_about_one(tmp_path, bits):
    artifact = open_artifact(synth_artifact("toy", tmp_path / "toy", bits=bits))
    random = np.random.default_rng(0)
    for name in artifact.linears:
        w = dequantize(artifact.linear(name))
        rms = np.sqrt(np.mean((random.standard_normal((64, w.shape[1])) @ w.T) ** 2))
        assert (0.6 if name != "embed" else 1.2) < rms < (1.6 if name != "embed" else 3.2)


def test_rows_beyond_the_random_pool_repeat_and_the_last_strip_is_clean(tmp_path):
    config = replace(SHAPES["toy"], vocab=2048 + 52, layers=1)
    packed = open_artifact(synth_artifact(config, tmp_path / "tall", bits=4)).linear("embed")
    w = unpack(packed)
    assert (w[2048:2096] == w[:48]).all()
    assert (w[:48] != w[48:96]).any()
    last = packed.codes.reshape(-1, 128)[-3:].reshape(3, 4, 32)  # rows 2096 .. 2103, of which four exist
    assert (last[:, :2] != 0).any()
    assert (last[:, 2:] == 0).all()


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    one, two, other = (
        (synth_artifact("toy", tmp_path / name, seed=seed) / "model.safetensors").read_bytes()
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert one == two
    assert one != other


def test_the_tokenizer_returns_any_text_and_fills_the_vocabulary():
    tokenizer = Tokenizer.from_str(model_files(SHAPES["toy"])["tokenizer.json"].decode())
    text = "Gräfin, 東京 \N{SNOWMAN}\n\t!"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text.encode())
    assert tokenizer.encode("<|begin|>user").ids[0] == 1
    assert tokenizer.get_vocab_size() == 300
    assert tokenizer.decode([299]) == "word40"


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_a_random_checkpoint(tmp_path, tied):
    path = synth_checkpoint(replace(SHAPES["toy"], tied=tied), tmp_path / "checkpoint", seed=3)
    model = AutoModelForCausalLM.from_pretrained(path)
    weight = model.model.layers[1].mlp.down_proj.weight
    assert tuple(weight.shape) == (96, 208)
    assert weight.float().std().item() == pytest.approx(0.02, rel=0.05)
    assert model.model.norm.weight.float().mean().item() == 1.0
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("phi3", {"rotary_channels": 12, "rope_divisors": (1.0,) * 6, "windows": (64, 64)}),
        ("gemma3_text", {"branch_norms": "both", "activation": "gelu_tanh", "qk_norm": True}),
        ("granitemoehybrid", {"residual_scale": 0.3}),
    ],
)
def test_a_checkpoint_of_any_family_is_read_back(tmp_path, family, fields):
    config = replace(SHAPES["toy"], family=family, **fields)
    checkpoint = open_checkpoint(synth_checkpoint(config, tmp_path / "s"))
    assert checkpoint.config == config
    for name in checkpoint.names():
        values = checkpoint.tensor(name)
        assert values.shape == checkpoint.shape(name)
        assert (values == 1).all() if name.endswith("norm") else 0.01 < values.std() < 0.03


def test_an_existing_place_is_not_overwritten_by_a_checkpoint(tmp_path):
    synth_checkpoint("toy", tmp_path / "checkpoint")
    with pytest.raises(ArtifactError, match="add --overwrite"):
        synth_checkpoint("toy", tmp_path / "checkpoint")


def test_unknown_shapes_and_tiny_vocabularies_are_refused(tmp_path):
    with pytest.raises(UsageError, match="135m"):
        shape_config("70b")
    with pytest.raises(UsageError, match="vocabulary"):
        synth_artifact(replace(SHAPES["toy"], vocab=200), tmp_path / "never")
    assert list(tmp_path.iterdir()) == []
