"""Metadata of GGUF files: none that may change the results is passed over."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import CheckpointError
from rockledge.model.gguf_keys import READ, check_metadata

VALUES = st.booleans() | st.integers(-5, 2**40) | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from(
    ["rope.scaling.", "rope.", "attention.", "expert_", "logit_", "ssm.", "", "embedding_", "residual_"]
).flatmap(lambda start: st.sampled_from(["factor", "scale", "count", "mode", "width"]).map(start.__add__))


@given(NAMES.filter(lambda name: name not in READ), VALUES | st.lists(VALUES, max_size=3))
@settings(max_examples=300, deadline=None)
def test_a_key_of_the_architecture_is_off_or_refused(name: str, value: Any) -> None:
    numbers = value if isinstance(value, list) else [value]
    neutral = all(v in (False, 0, "") for v in numbers) or value == 1 or value == 0.25
    said: object
    try:
        said = check_metadata("a.gguf", "llama", {f"llama.{name}": value}, head_dim=16)
    except CheckpointError as error:
        said = str(error)
    assert (said == [] and neutral) or f"a.gguf has llama.{name}: " in str(said)


@pytest.mark.parametrize("key", ["general.name", "tokenizer.ggml.model", "split.no", "quantize.imatrix.file"])
def test_what_describes_the_file_is_taken(key: str) -> None:
    assert check_metadata("a.gguf", "llama", {key: "x"}, head_dim=16) == []


def test_metadata_of_another_architecture_are_noted() -> None:
    notes = check_metadata("a.gguf", "llama", {"qwen2.rope.scaling.factor": 4.0}, head_dim=16)
    assert notes == ["a.gguf has metadata that are not known and not used: qwen2.rope.scaling.factor."]
