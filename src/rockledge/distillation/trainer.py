"""transformers' Trainer with a teacher: its loss and its held-out measurement.

Batches, devices, precision, accumulation, schedules, resuming and logging are the Trainer's own.
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch

from rockledge.distillation.checked_trainer import CheckedTrainer
from rockledge.distillation.hidden_states import hidden_sum
from rockledge.distillation.losses import learnt_rows, token_sums
from rockledge.distillation.sequence_order import batch_of, cached_teacher
from rockledge.distillation.settings import Settings
from rockledge.distillation.teacher import Lesson, Teacher


class DistillationTrainer(CheckedTrainer):
    """Minimises (1 - data_weight) * KL + data_weight * cross-entropy + hidden_weight * hidden-state loss,
    each a mean over the learnt tokens of all of a step's batch.

    Items come from `OrderedSequences`; what they do not hold of the teacher is asked of `teacher`. With
    neither, the loss is the cross-entropy alone.
    """

    def __init__(self, *, settings: Settings, teacher: Teacher | None, **arguments: Any) -> None:
        super().__init__(data_collator=batch_of, **arguments)
        self._settings, self._teacher = settings, teacher
        # The loss below divides by the tokens of the whole step, so nothing may divide it again.
        self.model_accepts_loss_kwargs = True
        self._parts: dict[str, torch.Tensor] = {}

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of one micro-batch as its share of the step's; TrainingError where it is not finite."""
        numbers = inputs.pop("number").tolist()
        parts, tokens, outputs = self._sums(model, inputs)
        weighted = [weight * parts[name] for name, weight in self._weights(parts).items()]
        loss = torch.stack(weighted).sum()
        if not bool(torch.isfinite(loss)):
            raise self.stopped("the loss is not finite", numbers)
        for name, value in (*parts.items(), ("tokens", torch.tensor(float(tokens)))):
            self._parts[name] = self._parts.get(name, 0.0) + value.detach().to(loss.device, torch.float32)
        loss = loss / (max(1, tokens) if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # the mean over processes takes it out again
        return (loss, outputs) if return_outputs else loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Means over all held-out tokens, in nats: `eval_loss`, `eval_data_loss` and with a teacher
        `eval_kl`. Every sequence counts once, in one order, however many processes share them."""
        model = self.model_wrapped if self.model_wrapped is not None else self.model
        model.eval()
        found: list[tuple[int, dict[str, float], int]] = []
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in self.get_eval_dataloader(eval_dataset):
                inputs = self._prepare_inputs(batch)
                number = int(inputs.pop("number")[0])
                parts, tokens, _ = self._sums(model, inputs)
                found.append((number, {name: float(value) for name, value in parts.items()}, tokens))
        every = {number: (parts, tokens) for number, parts, tokens in self._gathered(found)}
        count = max(1, sum(tokens for _, tokens in every.values()))
        names = next(iter(every.values()))[0] if every else {}
        means = {
            name: math.fsum(every[number][0][name] for number in sorted(every)) / count for name in names
        }
        loss = float(sum(weight * means[name] for name, weight in self._weights(means).items()))
        if not math.isfinite(loss):
            broken = [n for n in sorted(every) if not all(map(math.isfinite, every[n][0].values()))]
            raise self.stopped("the loss of held-out text is not finite", broken)
        metrics = {"loss": loss, **means}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer, with the parts of the loss beside it."""
        if "loss" in logs and self._parts:
            summed = {
                name: float(self.accelerator.gather(value.reshape(1)).sum())
                for name, value in self._parts.items()
            }
            tokens = max(1.0, summed.pop("tokens"))
            logs |= {name: value / tokens for name, value in summed.items()}
            self._parts = {}
        super().log(logs, start_time)

    def _sums(self, model: Any, inputs: dict[str, Any]) -> tuple[dict[str, torch.Tensor], int, Any]:
        """Sums over the learnt tokens by part of the loss, how many tokens these are, and the outputs."""
        cached, labels = cached_teacher(inputs), inputs["labels"]
        lesson = None if cached is None else Lesson(cached)
        if cached is None and self._teacher is not None:
            lesson = self._teacher.lesson(inputs, self._teacher_context())
        states = lesson.states if lesson is not None else None
        outputs = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            use_cache=False,
            output_hidden_states=states is not None,
        )
        sums = token_sums(outputs.logits, labels, None if lesson is None else lesson.logits)
        parts = {"data_loss": sums.data}
        if sums.kl is not None:
            parts["kl"] = sums.kl
        if states is not None:
            student = self.accelerator.unwrap_model(model)
            parts["hidden"] = hidden_sum(student, outputs.hidden_states, states, learnt_rows(labels))
        return parts, sums.tokens, outputs

    def _weights(self, parts: Mapping[str, Any]) -> dict[str, float]:
        data = self._settings.data_weight if "kl" in parts else 1.0
        weights = {"kl": 1 - data, "data_loss": data, "hidden": self._settings.hidden_weight}
        return {name: weight for name, weight in weights.items() if name in parts and weight}

    def _teacher_context(self) -> Any:
        return self.compute_loss_context_manager() if self.args.bf16 else nullcontext()

    def _gathered(self, found: list[Any]) -> list[Any]:
        if self.accelerator.num_processes == 1:
            return found
        from accelerate.utils import gather_object

        return list(gather_object(found))
