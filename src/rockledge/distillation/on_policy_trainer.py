"""TRL's trainer for on-policy distillation: the student continues prompts by its own draws, and learns the
reverse KL divergence from a teacher on what it wrote (arXiv 2306.13649, 2306.08543).

Writing, the loss and its gradient are TRL's. Here prompts are token ids, draws depend on the seed and the
step alone, so that a stopped run goes on as it would have, and nothing is reported to anybody. This module
needs the extra `on-policy`; `on_policy.py` says so where it is missing.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.nn.functional import log_softmax
from torch.utils.data import Dataset
from trl.trainer.distillation_config import DistillationConfig
from trl.trainer.distillation_trainer import DistillationTrainer as TrlTrainer

from rockledge.distillation.checked_trainer import CheckedTrainer
from rockledge.errors import UsageError

OnPolicyConfig = DistillationConfig

_TRIED_TOKENS = 32  # on which the loss is compared with its definition
_LEAST_OFF, _OFF = 0.01, 0.1  # nats, and relative: what bfloat16 explains


class PromptItems(Dataset[dict[str, Any]]):
    """Prompts, token ids each, as the items of this trainer."""

    def __init__(self, prompts: Sequence[Sequence[int]]) -> None:
        self._prompts = prompts

    def __len__(self) -> int:
        return len(self._prompts)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"prompt": list(self._prompts[place])}


class OnPolicyTrainer(CheckedTrainer, TrlTrainer):  # type: ignore[misc]
    """Minimises the reverse KL divergence, a mean over all tokens that the student wrote in a step. Items are
    of `PromptItems`; `ends` are the tokens that end an answer."""

    stage = " of the on-policy stage"
    rate_flag = "--on-policy-learning-rate"

    def __init__(self, *, ends: Sequence[int], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.eos_token_ids = list(ends)
        self._measured = 0

    def check_loss(self) -> None:
        """Compares TRL's loss with the divergence of the models' own logits. TRL multiplies hidden states by
        the head itself, so it does not know what else a family does to its logits.

        Raises:
            UsageError: they differ.
        """
        items, student = cast(PromptItems, self.train_dataset), cast(Any, self.model)
        ids = (items[0]["prompt"] * _TRIED_TOKENS)[:_TRIED_TOKENS]
        batch = torch.tensor([ids], device=self.args.device)
        first, rest = batch[:, : len(ids) // 2], batch[:, len(ids) // 2 :]
        inputs = {
            "prompt_ids": first,
            "prompt_mask": torch.ones_like(first),
            "completion_ids": rest,
            "completion_mask": torch.ones_like(rest),
        }
        student.to(self.args.device).eval()
        with torch.no_grad():
            found = float(self._compute_loss(student, inputs, None)[0])
            logits = [model(input_ids=batch).logits for model in (student, self.teacher_model)]
        own, taught = (
            log_softmax(x[0, first.shape[1] - 1 : -1].double() / self.temperature, -1) for x in logits
        )
        expected = float((own.exp() * (own - taught)).sum(-1).mean())
        # Numbers that are not finite are the run's to find, which says where.
        if math.isfinite(expected) and abs(found - expected) > _LEAST_OFF + _OFF * expected:
            raise UsageError(
                f"TRL computes a divergence of {found:.3g} where these models' logits have {expected:.3g}, "
                "so it does not suit this family; leave on-policy out"
            )

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's; TrainingError where it is not finite."""
        found: Any = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not bool(torch.isfinite(found[0] if return_outputs else found)):
            raise self.stopped("the loss is not finite")
        return found

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """`eval_loss`, the mean over all tokens that the student writes to the held-out prompts, by the same
        draws every time."""
        model = self.model_wrapped if self.model_wrapped is not None else self.model
        model.eval()
        summed, tokens, self._measured = 0.0, 0, 0
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in self.get_eval_dataloader(eval_dataset):
                inputs = self._prepare_inputs(batch)
                count = int(inputs["completion_mask"].sum())
                summed += count * float(self.compute_loss(model, inputs))
                tokens += count
        metrics = {f"{metric_key_prefix}_loss": summed / max(1, tokens)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """None: the report says how the student was made."""

    def _send_telemetry(self) -> None:
        """Nothing is sent."""

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if cast(torch.nn.Module, self.model).training:
            place = (0, self.state.global_step)
        else:
            place, self._measured = (1, self._measured), self._measured + 1
        seed = np.random.SeedSequence([self.args.seed, *place]).generate_state(1)[0]
        with torch.random.fork_rng([self.args.device] if self.args.device.type == "cuda" else []):
            torch.manual_seed(int(seed))
            return super()._prepare_inputs(generation_batch)

    def _generate_single_turn(self, *arguments: Any, **named: Any) -> list[list[int]]:
        try:
            written: list[list[int]] = super()._generate_single_turn(*arguments, **named)
        except RuntimeError as error:
            if "probability tensor" not in str(error):  # what torch.multinomial says of them
                raise
            raise self.stopped("the student's probabilities are not finite") from error
        return written
