"""An artifact as plain floats computes what it computes with every transform at run time."""

from pathlib import Path

import numpy as np
import pytest
from tests.export.artifacts import NAMES, TOKENS, Stored, converted, float_logits, held, without_head

from rockledge.artifact import open_artifact
from rockledge.export.plain import PlainModel
from rockledge.export.rknn_jobs import codes_of
from rockledge.quantization.float_model.reference_logits import ReferenceLogits


def of(found: Stored, tmp_path: Path) -> PlainModel:
    return PlainModel(open_artifact(converted(found, tmp_path / "artifact")))


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("name", [*NAMES, "tied"])
def test_plain_floats_are_the_artifact_before_inputs_are_rounded(
    name: str, untied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = without_head(held("llama-biases")) if name == "tied" else held(name)
    plain = PlainModel(of(found, tmp_path).artifact, untied)
    expected = float_logits(found, tmp_path / "artifact", TOKENS, monkeypatch)
    logits = ReferenceLogits(plain, [TOKENS])(TOKENS)
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_names_and_shapes_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    found = held("llama-biases")
    plain = of(found, tmp_path)
    assert sorted(plain.names()) == sorted(found.names())
    assert all(plain.shape(name) == plain.tensor(name).shape == found.shape(name) for name in found.names())


def test_codes_are_the_artifacts_where_nothing_is_multiplied_in(tmp_path: Path) -> None:
    tied = PlainModel(of(without_head(held("llama-biases")), tmp_path).artifact, untied=True)
    kept = [name for name in tied.artifact.linears if tied.keeps_codes(name)]
    assert kept == [name for name in tied.artifact.linears if not name.endswith("down")]
    for name in ("layers.0.attn.q", "layers.0.ffn.down", "head"):
        codes, scale = codes_of(tied, name)
        values = tied.tensor(name)
        near = 1e-6 if tied.keeps_codes(name) else 0.51
        assert np.abs(codes * scale[:, None] - values).max() <= near * scale.max()
