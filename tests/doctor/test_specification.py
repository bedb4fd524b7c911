"""The specification in PyTorch beside the decoder in NumPy, and what leaving a rounding out does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.doctor.conftest import FAMILIES
from tests.runtime.reference_numpy import reference_logits

from rockledge.artifact import open_artifact
from rockledge.doctor.specification import Specification
from rockledge.doctor.text import Text
from rockledge.model.config import ModelConfig
from rockledge.synth import SHAPES, synth_artifact

TEXT = Text.of([[5, 7, 9, 11, 200], [3, 4, 5, 6, 7, 8, 9, 10, 20]], [[4, 5, 6], []])


@pytest.mark.parametrize(
    "config",
    [*FAMILIES.values(), replace(SHAPES["toy"], family="qwen3", qk_norm=True)],
    ids=lambda c: c.family,
)
def test_doctor_computes_what_the_formats_say(config: ModelConfig, tmp_path: Path) -> None:
    artifact = open_artifact(synth_artifact(config, tmp_path / "it", seed=3, two_planes=("ffn.down",)))
    found = Specification.of(artifact).run(TEXT).numpy()
    wanted = np.concatenate([reference_logits(artifact, list(one)) for one in TEXT.sequences])
    # A rounding that falls the other way moves logits a little.
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()
    assert (found.argmax(-1) == wanted.argmax(-1)).mean() > 0.9


def test_doctor_pads_without_changing_anything(tmp_path: Path) -> None:
    spec = Specification.of(open_artifact(synth_artifact("toy", tmp_path / "it", seed=4)))
    together = spec.run(TEXT)
    alone = torch.cat([spec.run(Text((one,), (1,), least=20)) for one in TEXT.sequences])
    assert torch.allclose(together, alone, atol=1e-3)
