"""What the student is shown of the teacher while it learns: distributions, and hidden states if asked for."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from rockledge.distillation.losses import learnt_rows
from rockledge.distillation.top_logits import TopLogits, top_logits


@dataclass(frozen=True)
class Lesson:
    """The teacher's distributions for the learnt tokens of a batch, in order, and its hidden states [B, T, H]
    by layer, None unless asked for."""

    logits: TopLogits
    states: tuple[torch.Tensor, ...] | None = None


@dataclass(frozen=True)
class Teacher:
    """A model that is asked in every step. `vocabulary`: how many of its logits the student has too."""

    model: Any
    k: int
    vocabulary: int
    with_states: bool = False

    @torch.no_grad()
    def lesson(self, inputs: Mapping[str, torch.Tensor], autocast: AbstractContextManager[Any]) -> Lesson:
        """What it says of a batch with `input_ids`, `position_ids` and `labels`."""
        with autocast:
            out = self.model(
                input_ids=inputs["input_ids"],
                position_ids=inputs["position_ids"],
                use_cache=False,
                output_hidden_states=self.with_states,
            )
        learnt = learnt_rows(inputs["labels"])
        rows = out.logits.flatten(0, 1)[learnt, : self.vocabulary]
        return Lesson(top_logits(rows, self.k), tuple(out.hidden_states) if self.with_states else None)
