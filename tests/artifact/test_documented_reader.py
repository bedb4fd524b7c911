"""The reader printed in docs/formats.md, which shares no code with ours, decodes the same weights."""

import re
from pathlib import Path

import pytest

from rockledge.artifact import open_artifact
from rockledge.formats.packing import dequantize
from rockledge.synth import synth_artifact

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.mark.parametrize(
    "name", ["layers.0.attn.q", "layers.1.attn.k", "layers.1.ffn.up", "layers.0.ffn.down"]
)
def test_the_documented_reader_decodes_the_same(tmp_path, name):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    scope: dict = {}
    exec(code, scope)
    path = synth_artifact("toy", tmp_path / "toy")
    ours = dequantize(open_artifact(path).linear(name))
    theirs = scope["read_linear"](path / "model.safetensors", name)
    assert theirs.shape == ours.shape
    assert (theirs == ours).all()
