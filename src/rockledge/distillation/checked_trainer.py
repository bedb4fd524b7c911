"""transformers' Trainer, made silent, with checkpoints that are whole; it stops before a number that is not
finite reaches the weights."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from rockledge.distillation.full_disk import says_full
from rockledge.distillation.resuming import checkpoint_bytes, drop_older, last_checkpoint, mark_complete
from rockledge.errors import TrainingError
from rockledge.units import show_size

_LISTED = 8  # sequences that an error names


class CheckedTrainer(Trainer):
    """What the trainers of all stages share. `stage` names one in an error, such as " of the on-policy
    stage", and `rate_flag` is the flag of its learning rate."""

    stage = ""
    rate_flag = "--learning-rate"

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._directory = Path(str(self.args.output_dir))
        self.pop_callback(PrinterCallback)
        self.pop_callback(ProgressCallback)
        self.add_callback(_FiniteGradients(self))

    def stopped(self, what: str, numbers: Sequence[int] = ()) -> TrainingError:
        """The error that says where the run stopped and what is kept of it."""
        step, kept = self.state.global_step + 1, last_checkpoint(self._directory)
        shown = ", ".join(map(str, numbers[:_LISTED]))
        where = f" (sequences {shown} of the data)" if shown else ""
        saved = (
            "no checkpoint was written before"
            if kept is None
            else f"the checkpoint of step {kept[0]} is kept in {kept[1]}"
        )
        return TrainingError(
            f"{what} in step {step} of {self.args.max_steps}{self.stage}{where}; {saved}; lower "
            f"{self.rate_flag}, or look for broken text or weights"
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As the Trainer; a checkpoint counts once all of it is on the disk. TrainingError where that has no
        room, which costs no earlier checkpoint."""
        place = self._directory / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            self._check_room(place)
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_complete(place)
        except Exception as error:  # safetensors and torch have each their own for a full disk
            if not says_full(error):
                raise
            shutil.rmtree(place, ignore_errors=True)
            raise self._no_room(place, str(error).splitlines()[0][:100]) from error
        self.accelerator.wait_for_everyone()

    def require_room(self) -> None:
        """Raises TrainingError where the disk has no room for the two checkpoints that are kept at a time:
        weights and both states of Adam, float32."""
        model: Any = self.model
        learns = sum(int(p.numel()) for p in model.parameters() if p.requires_grad)
        self._directory.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(self._directory).free, 2 * 3 * 4 * learns
        if free < needed:
            raise TrainingError(
                f"checkpoints need {show_size(needed, enough=True)} of disk in {self._directory}, but "
                f"{show_size(free)} are free; free some, or name another disk by --work"
            )

    def _check_room(self, place: Path) -> None:
        kept = last_checkpoint(place.parent)
        needed = 0 if kept is None else checkpoint_bytes(kept[1])
        free = shutil.disk_usage(place.parent).free
        if free < needed and kept is not None:
            # The Trainer removes the one before the last only once a third is written.
            drop_older(place.parent, kept[1])
            free = shutil.disk_usage(place.parent).free
        if free < needed:
            raise self._no_room(
                place, f"{show_size(needed, enough=True)} are needed and {show_size(free)} are free"
            )

    def _no_room(self, place: Path, why: str) -> TrainingError:
        kept = last_checkpoint(place.parent)
        saved = "" if kept is None else f"; the checkpoint of step {kept[0]} is kept"
        return TrainingError(
            f"there is no room for the checkpoint of step {self.state.global_step}{self.stage} in "
            f"{place.parent} ({why}){saved}; free some space and give the same command again"
        )


class _FiniteGradients(TrainerCallback):
    """Stops a run before a gradient that is not finite reaches the weights."""

    def __init__(self, trainer: CheckedTrainer) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After clipping, before the step."""
        gradients = [p.grad.detach() for p in kwargs["model"].parameters() if p.grad is not None]
        # With FSDP every process looks at its own part.
        own = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
        largest = [gradient.abs().amax() for gradient in own if gradient.numel()]
        if largest and not bool(torch.isfinite(torch.stack([x.float() for x in largest])).all()):
            raise self._trainer.stopped("the gradient is not finite")
