"""All that the checks may look at: the artifact, its reference, and what every model makes of the text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from rockledge.artifact import Artifact
from rockledge.doctor.basis import Basis
from rockledge.doctor.divergence import divergences
from rockledge.doctor.reading import Reading
from rockledge.doctor.specification import Specification
from rockledge.doctor.text import Text
from rockledge.model.chat import ChatTemplate
from rockledge.model.checkpoint import Checkpoint
from rockledge.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class NpuRun:
    """Logits fp32 [tokens, vocab] of the first `tokens` of the text's first sequence, with the NPU and by the
    same steps without it; `status` is what the engine said of the NPU, `virtual` whether it was one."""

    found: Tensor
    alone: Tensor
    tokens: int
    status: Mapping[str, Any]
    virtual: bool


@dataclass(frozen=True)
class Runs:
    """Logits fp32 [tokens, vocab] of the text: of the specification, of the runtime on the CPU, of the float
    model where there is a reference."""

    specification: Tensor
    cpu: Tensor
    reference: Tensor | None = None
    npu: NpuRun | None = None


@dataclass(frozen=True)
class Case:
    """`basis` and `reference` are None where no reference was given; `readings` are empty then, `explained`
    too: the share of the divergence that each measured operation explains, by its name."""

    artifact: Artifact
    text: Text
    spec: Specification
    runs: Runs
    reference: Checkpoint | None = None
    basis: Basis | None = None
    readings: tuple[Reading, ...] = ()
    explained: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def kl(self) -> float | None:
        """KL(float model || runtime on the CPU), nats a token; None without a reference."""
        if self.runs.reference is None:
            return None
        return float(divergences(self.runs.reference, self.runs.cpu).mean())

    @cached_property
    def reference_files(self) -> dict[str, bytes]:
        """The reference's small files; empty without one."""
        return {} if self.reference is None else self.reference.files()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The artifact's."""
        return Tokenizer.from_files(self.artifact.files)

    @cached_property
    def chat(self) -> ChatTemplate | None:
        """The artifact's."""
        return ChatTemplate.from_files(self.artifact.files)
