"""Rotary settings of GGUF files: any values give numbers or one sentence."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import CheckpointError
from rockledge.model.gguf_rope import gguf_rope
from rockledge.model.gguf_values import GgufValues

NUMBERS = st.floats(width=32) | st.integers(-3, 1 << 40) | st.sampled_from([0.0, 1.0, -1.0, 8.0, 1e-40])
SETTINGS = st.fixed_dictionaries(
    {"context_length": st.integers(1, 1 << 20)},
    optional={
        "rope.scaling.type": st.sampled_from(["none", "linear", "yarn", "longrope", "su"]),
        "rope.scaling.original_context_length": st.integers(0, 1 << 20),
        **dict.fromkeys(
            ("rope.freq_base", "rope.scaling.factor", "rope.scale_linear", "rope.scaling.attn_factor",
             "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_ext_factor",
             "rope.scaling.yarn_log_multiplier", "rope.scaling.yarn_attn_factor"),
            NUMBERS,
        ),
    },
)  # fmt: skip


@given(SETTINGS, st.integers(1, 64))
@settings(max_examples=300, deadline=None)
def test_any_settings_are_read_or_refused(metadata: dict[str, Any], pairs: int) -> None:
    values = GgufValues("a.gguf", "llama", {f"llama.{key}": value for key, value in metadata.items()}, ())
    try:
        fields = gguf_rope(values, 2 * pairs, lambda name, count: None)
    except CheckpointError:
        return
    assert len(fields["rope_divisors"]) == pairs
    assert np.isfinite(fields["rope_factor"])
