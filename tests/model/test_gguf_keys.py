"""Metadata of GGUF files: none that may change the results is passed over."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import CheckpointError
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


def test_metadata_of_another_architecture_are_noted() -> None:
    notes = check({"qwen2.rope.scaling.factor": 4.0})
    assert notes == ["a.gguf has metadata that are not known and not used: qwen2.rope.scaling.factor."]
