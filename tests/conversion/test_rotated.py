"""NumPy and the native core fold the same list that quantize folds in PyTorch, and get the same weights."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.model.checkpoints import MODELS, random_model, save, write_gguf
from tests.quantization.forms import FORMS, Held, form

from rockledge.conversion import rotated as numpy_road
from rockledge.conversion.rotated import RotatedWeights
from rockledge.formats.hadamard import random_rotation
from rockledge.model.block import decoder, layer_name
from rockledge.model.checkpoint import StoredCheckpoint, open_checkpoint
from rockledge.quantization.steps import Steps
from rockledge.quantization.transforming.rotate import rotated

SEED = 5


@dataclass(frozen=True)
class HeldByRows(Held):
    """A checkpoint in memory that gives rows."""

    def rows(self, name: str, first: int, count: int) -> npt.NDArray[np.float32]:
        return self.tensors[name][first : first + count]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadPoolExecutor]:
    monkeypatch.setattr(numpy_road, "_PART", 64 * 16)  # so that toy matrices have several parts
    with ThreadPoolExecutor(2) as made:
        yield made


def same_weights(checkpoint: StoredCheckpoint, pool: ThreadPoolExecutor) -> None:
    config = checkpoint.config
    ours = RotatedWeights(checkpoint, random_rotation(config.hidden, SEED), pool)
    theirs = rotated(checkpoint, SEED, steps=Steps(balance=False))
    tree = decoder(config)

    def close(found: Any, expected: Any) -> None:
        expected = np.asarray(expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))

    for number, layer in enumerate(tree.layers):
        expected = theirs.block_weights(number)
        for linear in layer.linears:
            weights, bias = ours.layer_linear(number, linear)
            close(weights, expected[linear.role])
            assert (bias is None) == (not linear.bias)
            if bias is not None:
                close(bias, expected[linear.role + ".bias"])
        for norm in layer.kept_norms:
            close(ours.gain(layer_name(number, norm.role)), expected[norm.role])
    close(ours.end_rows(tree.embed, 3, 40), theirs.embedding()[3:43])
    close(ours.end_rows(tree.head, 8, 40), theirs.head()[8:48])


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_every_family_are_those_of_the_torch_road(
    name: str, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    same_weights(open_checkpoint(save(random_model(name), tmp_path)), pool)


@pytest.mark.parametrize("name", FORMS)
def test_weights_of_every_form_are_those_of_the_torch_road(name: str, pool: ThreadPoolExecutor) -> None:
    held, _ = form(name)
    same_weights(HeldByRows(held.config, held.tensors), pool)


@pytest.mark.parametrize("name", ["llama3", "qwen2"])
@pytest.mark.parametrize("first, count", [(0, 1), (5, 17), (16, 16), (31, 1)])
def test_rows_of_both_formats_are_those_of_their_tensors(
    name: str, first: int, count: int, tmp_path: Path
) -> None:
    model = random_model(name)
    directory = open_checkpoint(save(model, tmp_path / "model"))
    file = open_checkpoint(write_gguf(tmp_path / "model.gguf", model))
    for checkpoint in (directory, file):
        for matrix in checkpoint.names():
            if len(checkpoint.shape(matrix)) == 2:
                expected = directory.tensor(matrix)[first : first + count]
                assert np.array_equal(checkpoint.rows(matrix, first, count), expected)
