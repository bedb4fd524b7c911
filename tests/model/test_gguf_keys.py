"""Metadata of GGUF files: none that may change the results is passed over."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.checkpoints import random_model, write_gguf

from rockledge.errors import CheckpointError
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.gguf_keys import check_metadata
from rockledge.model.gguf_values import GgufValues

VALUES = st.booleans() | st.integers(-5, 2**40) | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from(
    ["rope.scaling.", "rope.", "attention.", "expert_", "logit_", "ssm.", "", "embedding_", "residual_"]
).flatmap(lambda start: st.sampled_from(["factor", "scale", "count", "mode", "width"]).map(start.__add__))


def check(metadata: dict[str, Any]) -> list[str]:
    heads = {"llama.embedding_length": 64, "llama.attention.head_count": 4}
    values = GgufValues("a.gguf", "llama", {**metadata, **heads}, ())
    assert values.head_dim == 16
    return check_metadata(values)


@given(NAMES, VALUES | st.lists(VALUES, max_size=3))
@settings(max_examples=300, deadline=None)
def test_a_key_of_the_architecture_is_off_or_refused(name: str, value: Any) -> None:
    numbers = value if isinstance(value, list) else [value]
    neutral = all(v in (False, 0, "") for v in numbers) or value == 1 or value == 0.25
    said: object
    try:
        said = check({f"llama.{name}": value})
    except CheckpointError as error:
        said = str(error)
    assert (said == [] and neutral) or f"a.gguf has llama.{name}: " in str(said)


@pytest.mark.parametrize("key", ["general.name", "tokenizer.ggml.model", "split.no", "quantize.imatrix.file"])
def test_what_describes_the_file_is_taken(key: str) -> None:
    assert check({key: "x"}) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("tokenizer.ggml.add_bos_token", "false", "'false', expected true or false"),
        ("tokenizer.ggml.add_bos_token", 0, "0, expected true or false"),
        ("tokenizer.ggml.add_space_prefix", "true", "'true', expected true or false"),
        ("tokenizer.ggml.eos_token_id", "2", "'2', expected a whole number"),
        ("tokenizer.ggml.bos_token_id", True, "True, expected a whole number"),
        ("tokenizer.ggml.eot_token_id", [2], r"\[2\], expected a whole number"),
        ("tokenizer.ggml.pre", 0, "0, expected text"),
        ("tokenizer.ggml.model", ["gpt2"], r"\['gpt2'\], expected text"),
        ("tokenizer.chat_template", 7, "7, expected text"),
        ("tokenizer.chat_template.tool_use", False, "False, expected text"),
    ],
)
def test_tokenizer_metadata_of_another_type_are_refused_by_name(
    key: str, value: object, said: str, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata={key: value})
    with pytest.raises(CheckpointError, match=rf"a\.gguf has {key}: {said}; convert"):
        open_checkpoint(path)


def test_metadata_of_another_architecture_are_noted() -> None:
    notes = check({"qwen2.rope.scaling.factor": 4.0})
    assert notes == ["a.gguf has metadata that are not known and not used: qwen2.rope.scaling.factor."]
