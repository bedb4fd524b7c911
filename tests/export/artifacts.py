"""Artifacts of every form of a decoder, by the fastest road, and what they are before inputs are rounded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.quantization.forms import FORMS, Held, form
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rockledge.artifact import Artifact, open_artifact
from rockledge.conversion.convert import convert
from rockledge.formats.packing import dequantize
from rockledge.quantization.reporting import fakequant
from rockledge.quantization.reporting.fakequant import QuantisedLogits
from rockledge.quantization.transforming.rotate import rotated

TOKENS = np.random.default_rng(0).integers(0, 80, 64).tolist()  # past windows of 8 and 12, contexts of 16
_FAMILIES = {"gemma3": "gemma3_text", "llama-biases": "llama", "llama-dynamic": "llama"}
NAMES = tuple(FORMS)


@dataclass(frozen=True)
class Stored(Held):
    """A checkpoint in memory with a byte-level tokenizer of letters and one merge."""

    def rows(self, name: str, first: int, count: int) -> npt.NDArray[np.float32]:
        return self.tensors[name][first : first + count].copy()

    def files(self) -> dict[str, bytes]:
        letters = [chr(c) for c in range(0x21, 0x7F)][: self.config.vocab - 5]
        words = ["<unk>", "<bos>", "<eos>", *letters, "th", "<last>"]
        letters_that_merge = [("t", "h")] if "t" in letters else []
        if not letters_that_merge:
            words[-2], letters_that_merge = "AB", [("A", "B")]
        tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, letters_that_merge))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return {"tokenizer.json": tokenizer.to_str().encode()}


def held(name: str, **changes: Any) -> Stored:
    """The checkpoint of a form, under the name of its family; `changes` are of its configuration."""
    found, _ = form(name)
    context = {"context": 64} if name == "llama-dynamic" else {}
    config = replace(found.config, family=_FAMILIES.get(name, name), **context, **changes)
    return Stored(config, found.tensors)


def without_head(found: Stored) -> Stored:
    """The same with the embedding as its head."""
    tensors = {name: values for name, values in found.tensors.items() if name != "head"}
    return Stored(replace(found.config, tied=True), tensors)


def converted(found: Stored, path: Path) -> Path:
    """Its artifact."""
    return convert(found, path, bits=8.5)


@dataclass(frozen=True)
class _Linears:
    artifact: Artifact

    def weights(self, name: str, device: torch.device) -> torch.Tensor:
        return torch.from_numpy(dequantize(self.artifact.linear(name)))

    def bias(self, name: str) -> npt.NDArray[np.float32] | None:
        return self.artifact.linear(name).bias


def float_logits(
    found: Stored, path: Path, tokens: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> npt.NDArray[np.float32]:
    """Logits fp32 [tokens, vocab] of the artifact at `path` as the reports compute them, with every transform
    that the runtime does, but no input rounded."""
    artifact, model = open_artifact(path), rotated(found)
    taps = fakequant.rounding_taps
    as_it_is: Callable[[torch.Tensor, int], torch.Tensor] = lambda x, planes: x  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(fakequant, "rounded_inputs", as_it_is)
        patch.setattr(
            fakequant,
            "rounding_taps",
            lambda tree, layer, planes, online: taps(tree, layer, planes, online, as_it_is),
        )
        logits = QuantisedLogits(
            _Linears(artifact), model.tree, artifact.online, [list(tokens)],
            planes=artifact.planes, stream=model.stream, head_input=model.head_input, gains=artifact.array,
        )  # fmt: skip
        return logits(tokens)
