"""Hugging Face directories: what is read, and what is refused before or while reading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.model.checkpoints import random_model, save
from tests.model.damage import damaged, read_or_refuse
from tokenizers import Tokenizer, decoders, models

from rockledge.errors import CheckpointError
from rockledge.model.chat import ChatTemplate
from rockledge.model.huggingface import HuggingFaceCheckpoint

WEIGHTS = "model.safetensors"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return save(random_model("llama3"), tmp_path)


def change_weights(directory: Path, **changed: torch.Tensor | None) -> None:
    """Replaces, adds or (None) removes tensors; names are given with "__" for "."."""
    held = load_file(directory / WEIGHTS)
    for name, values in changed.items():
        held.pop(name.replace("__", "."), None)
        if values is not None:
            held[name.replace("__", ".")] = values
    save_file(held, directory / WEIGHTS)


def change_config(directory: Path, **changed: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def test_tensors_have_canonical_names_and_their_values(directory: Path) -> None:
    checkpoint = HuggingFaceCheckpoint.open(directory)
    held = load_file(directory / WEIGHTS)
    assert len(checkpoint.names()) == len(held)
    q = checkpoint.tensor("layers.1.attn.q")
    assert q.dtype == np.float32
    assert checkpoint.shape("layers.1.attn.q") == q.shape
    np.testing.assert_array_equal(q, held["model.layers.1.self_attn.q_proj.weight"].numpy())
    assert checkpoint.stored == "safetensors, float32"


def test_the_files_of_the_tokenizer_come_along(directory: Path) -> None:
    (directory / "tokenizer.json").write_text(bare_tokenizer())
    (directory / "chat_template.jinja").write_text("hello")
    files = HuggingFaceCheckpoint.open(directory).files()
    assert files["chat_template.jinja"] == b"hello"
    assert set(files) == {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"}


def test_named_templates_come_along_and_a_template_of_a_processor_does_not(directory: Path) -> None:
    (directory / "tokenizer.json").write_text(bare_tokenizer())
    (directory / "chat_template.json").write_text('{"chat_template": "{{ messages }}"}')
    checkpoint = HuggingFaceCheckpoint.open(directory)
    assert ChatTemplate.from_files(checkpoint.files()) is None
    assert any("chat_template.json" in note for note in checkpoint.notes)
    (directory / "additional_chat_templates").mkdir()
    (directory / "additional_chat_templates" / "tool_use.jinja").write_text("tools: {{ tools | tojson }}")
    (directory / "chat_template.jinja").write_text("no tools")
    checkpoint = HuggingFaceCheckpoint.open(directory)
    chat = ChatTemplate.from_files(checkpoint.files())
    assert chat is not None
    assert [chat.render([]), chat.render([], tools=[1])] == ["no tools", "tools: [1]"]
    assert not any("chat_template.json" in note for note in checkpoint.notes)


def bare_tokenizer() -> str:
    made = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    made.decoder = decoders.ByteLevel()
    return str(made.to_str())


def test_a_missing_tokenizer_is_refused_with_what_to_do(directory: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer.json; copy it"):
        HuggingFaceCheckpoint.open(directory).files()
    (directory / "tokenizer.model").write_bytes(b"")
    with pytest.raises(CheckpointError, match="AutoTokenizer"):
        HuggingFaceCheckpoint.open(directory).files()


def test_values_that_are_not_finite_are_refused_by_name(directory: Path) -> None:
    norm = torch.ones(64)
    norm[3], norm[5] = float("nan"), float("inf")
    change_weights(directory, model__layers__1__input_layernorm__weight=norm)
    checkpoint = HuggingFaceCheckpoint.open(directory)
    assert np.isfinite(checkpoint.tensor("layers.0.attn.norm")).all()
    with pytest.raises(CheckpointError, match=r"layers.1.attn.norm holds 2 values that are NaN"):
        checkpoint.tensor("layers.1.attn.norm")


def test_a_missing_tensor_is_named(directory: Path) -> None:
    change_weights(directory, model__layers__1__mlp__up_proj__weight=None)
    with pytest.raises(CheckpointError, match=r"model.layers.1.mlp.up_proj.weight is missing"):
        HuggingFaceCheckpoint.open(directory)


def test_a_wrong_shape_is_named(directory: Path) -> None:
    change_config(directory, vocab_size=81)
    with pytest.raises(CheckpointError, match=r"embed_tokens.weight has shape \[80, 64\].*\[81, 64\]"):
        HuggingFaceCheckpoint.open(directory)


def test_a_tensor_that_would_be_left_out_is_refused(directory: Path) -> None:
    change_weights(directory, model__layers__0__self_attn__o_proj__bias=torch.ones(64))
    with pytest.raises(CheckpointError, match=r"o_proj.bias does not belong to the family 'llama'"):
        HuggingFaceCheckpoint.open(directory)


def test_harmless_extra_tensors_are_passed_over(directory: Path) -> None:
    change_weights(directory, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(8))
    assert HuggingFaceCheckpoint.open(directory).config.layers == 2


def test_a_tied_model_may_repeat_its_embedding(tmp_path: Path) -> None:
    save(random_model("smollm"), tmp_path)
    embedding = load_file(tmp_path / WEIGHTS)["model.embed_tokens.weight"]
    change_weights(tmp_path, lm_head__weight=embedding.clone())
    assert "head" not in HuggingFaceCheckpoint.open(tmp_path).names()


@pytest.mark.parametrize(
    ("trace", "scheme"),
    [
        ("qweight", "GPTQ or AWQ"), ("weight_packed", "compressed-tensors"),
        ("weight__absmax", "bitsandbytes"), ("SCB", "bitsandbytes"), ("weight_scale_inv", "FP8"),
    ],
)  # fmt: skip
def test_tensors_of_other_quantisers_are_recognised(trace: str, scheme: str, directory: Path) -> None:
    name = f"model__layers__0__mlp__up_proj__{trace}"
    change_weights(directory, **{name: torch.ones(4, dtype=torch.int32)})
    with pytest.raises(CheckpointError, match=f"already quantised .{scheme}"):
        HuggingFaceCheckpoint.open(directory)


def test_files_of_other_quantisers_are_recognised(directory: Path) -> None:
    (directory / "quantize_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"already quantised .GPTQ."):
        HuggingFaceCheckpoint.open(directory)


def test_integer_weights_are_refused_when_opened(directory: Path) -> None:
    change_weights(directory, model__norm__weight=torch.ones(64, dtype=torch.int8))
    with pytest.raises(CheckpointError, match=r"model.norm.weight holds I8"):
        HuggingFaceCheckpoint.open(directory)


def test_an_artifact_is_no_checkpoint(directory: Path) -> None:
    save_file(load_file(directory / WEIGHTS), directory / WEIGHTS, metadata={"rockledge": "{}"})
    with pytest.raises(CheckpointError, match="is a Rockledge artifact"):
        HuggingFaceCheckpoint.open(directory)


def test_pickled_weights_are_refused(directory: Path) -> None:
    (directory / WEIGHTS).rename(directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: pickled PyTorch.*save_pretrained"):
        HuggingFaceCheckpoint.open(directory)


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": {"a": 1}}',
        *(json.dumps({"weight_map": {"a": name}}) for name in ("../other.safetensors", "..", "", "x" * 300)),
    ],
)
def test_a_damaged_index_is_refused(index: str, directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    (directory / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match="fetch it again"):
        HuggingFaceCheckpoint.open(directory)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save(random_model("llama3"), tmp_path, max_shard_size="50KB")
    (lost := sorted(tmp_path.glob("*.safetensors"))[1]).unlink()
    with pytest.raises(CheckpointError, match=lost.name):
        HuggingFaceCheckpoint.open(tmp_path)


def test_a_layer_count_that_cannot_be_is_refused_without_listing_layers(directory: Path) -> None:
    change_config(directory, num_hidden_layers=1000)
    with pytest.raises(CheckpointError, match="too few for 1000 layers"):
        HuggingFaceCheckpoint.open(directory)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = random_model("smollm", hidden_size=6, intermediate_size=4, num_hidden_layers=1, vocab_size=4)
    return save(model, tmp_path_factory.mktemp("whole"))


@given(st.data(), st.sampled_from(["config.json", WEIGHTS]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_directories_are_read_or_refused(
    whole: Path, tmp_path: Path, data: st.DataObject, name: str
) -> None:
    for file in ("config.json", WEIGHTS):
        content = (whole / file).read_bytes()
        (tmp_path / file).write_bytes(data.draw(damaged(content)) if file == name else content)

    def read() -> None:
        checkpoint = HuggingFaceCheckpoint.open(tmp_path)
        for tensor in checkpoint.names():
            assert np.isfinite(checkpoint.tensor(tensor)).all()

    read_or_refuse(read)
