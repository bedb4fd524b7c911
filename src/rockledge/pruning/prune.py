"""The whole way from a teacher to a smaller checkpoint: measure, choose, cut, refit, write, read back."""

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rockledge.artifact.provenance import Provenance, peak_memory
from rockledge.model.block import decoder
from rockledge.model.checkpoint import Checkpoint
from rockledge.model.huggingface import HuggingFaceCheckpoint
from rockledge.model.source import source_hub_id, source_numbers
from rockledge.pruning.choice import candidates, width_notes
from rockledge.pruning.depth import Depth, Dropped, choose_layers
from rockledge.pruning.estimate import DEPTH_SEQUENCES
from rockledge.pruning.finished import FinishedStages, finished_stages
from rockledge.pruning.follow import Outcome, follow, least_loss
from rockledge.pruning.importance import Importance, Progress
from rockledge.pruning.pictures import pictures
from rockledge.pruning.refit import RIDGE
from rockledge.pruning.report import hidden_share, layer_numbers, report_text, sizes, tried_numbers
from rockledge.pruning.request import LENGTH, PruneRequest
from rockledge.pruning.stages import compared, measured, priced, run_inputs
from rockledge.pruning.students import Kept, what_stays
from rockledge.pruning.targets import Allowed
from rockledge.pruning.teacher import open_teacher
from rockledge.pruning.walk import model_losses, through
from rockledge.pruning.write import NUMBERS, TEXT, check_free, check_room_for, writing_student
from rockledge.quantization.calibration.sequences import Calibration, calibration_for
from rockledge.quantization.device import check_device
from rockledge.quantization.float_model.forward import block_weights, embed_tokens


@dataclass(frozen=True)
class PruneReport:
    """`numbers` is what pruning.json holds, `text` what pruning.md holds; `reused` are the stages that an
    earlier run had finished before it was stopped."""

    numbers: dict[str, Any]
    text: str
    reused: tuple[str, ...] = ()


def prune(
    teacher: str | Path | HuggingFaceCheckpoint,
    out: str | Path,
    asked: PruneRequest,
    *,
    allowed: Allowed | None = None,
    device: str = "cpu",
    force: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> PruneReport:
    """Writes a smaller checkpoint of `teacher` to the directory `out`, and reports what that cost.

    `teacher` is a Hugging Face directory, a Hub id or an open checkpoint. Of several shapes that meet the
    target (`choice.candidates`; `allowed` decides for a board) the one with the least loss on held-out
    calibration text after the refit is taken. Nothing appears at `out` before it is complete, and nothing
    that is there is replaced. A run that was stopped goes on after its last finished stage, which are kept
    hidden beside `out`, and ends in the same bytes. `force` goes on with less calibration text than asked
    for; `command` is the command line, for the report. Raises RockledgeError's family.
    """
    started, place, say = time.monotonic(), Path(os.path.realpath(out)), progress or _silent
    check_free(place)
    check_device(device)
    source = teacher if isinstance(teacher, HuggingFaceCheckpoint) else open_teacher(teacher)
    tried = candidates(source.config, asked, allowed)
    text = calibration_for(
        source.files(),
        asked.calibration,
        tokens=asked.tokens,
        length=min(LENGTH, source.config.context),
        seed=asked.seed,
        force=force,
    )
    sequences, held_out = torch.from_numpy(text.sequences), torch.from_numpy(text.held_out)
    tokens = torch.cat([sequences, held_out])
    check_room_for(place, source, [one.shape for one in tried])
    with finished_stages(place, run_inputs(source.path, sequences, held_out, device)) as finished:
        found = measured(finished, source, sequences, device, say)
        depth = _depth(finished, source, sequences, found, [one.shape.layers for one in tried], device, say)
        students = [
            what_stays(source.config, one.shape, _layers(depth, source, one.shape.layers), found)
            for one in tried
        ]
        outcomes: list[Outcome] = []
        if len(students) > 1:
            outcomes = compared(finished, source, tokens, len(held_out), found, students, device, say)
        chosen = least_loss(outcomes) if outcomes else 0
        with writing_student(place, source, students[chosen], found) as writer:
            before, made = follow(
                source, tokens, len(held_out), found, [students[chosen]], device, say, "write", writer.layer
            )
            if not made[0].fits:  # written again as it was cut
                follow(
                    source, tokens, len(held_out), found, [students[chosen]], device, say, "write",
                    writer.layer, refit=False,
                )  # fmt: skip
            written = loss_of(writer.finish(), held_out, device)
            outcomes = outcomes or made
            least_loss(made)  # or it has none
            numbers = {
                **_numbers(source, students[chosen], found, depth, text),
                "refitted": made[0].fits,
                "tried": tried_numbers(source.config, tried, outcomes, chosen),
                "teacher_loss": float(before.mean()),
                "written_loss": written,
                "scored_tokens": before.numel(),
            }
            numbers["notes"] += width_notes(source.config, tried)
            drawn = pictures(numbers)
            made_by = Provenance(
                command=command,
                seconds=time.monotonic() - started,
                peak_memory_bytes=peak_memory(),
                calibration=f"{asked.calibration or 'built-in'} (SHA-256 {text.sha256[:12]}...)",
                tokens=sequences.numel(),
                seed=asked.seed,
                steps={"ridge of the refit": RIDGE, "shapes": len(tried)},
            )
            words = report_text(numbers, list(drawn), made_by.lines())
            writer.file(NUMBERS, (json.dumps(numbers, indent=2) + "\n").encode())
            writer.file(TEXT, words.encode(errors="backslashreplace"))
            for name, picture in drawn.items():
                writer.file(name, picture)
    seconds = round(time.monotonic() - started, 1)
    return PruneReport({**numbers, "seconds": seconds}, words, tuple(finished.reused))


@torch.no_grad()
def loss_of(checkpoint: Checkpoint, tokens: Tensor, device: torch.device | str) -> float:
    """The loss of a checkpoint on `tokens` int64 [S, T], nats a token; streamed layer by layer."""
    tree = decoder(checkpoint.config)
    states = embed_tokens(checkpoint, tokens)
    for number, layer in enumerate(tree.layers):
        weights = block_weights(checkpoint, number, device)
        for branch in layer.branches:
            states = through(weights, states, tree, branch, device)
    return float(model_losses(checkpoint, states, tokens, tree, device).mean())


def _depth(
    finished: FinishedStages,
    source: Checkpoint,
    sequences: Tensor,
    found: Importance,
    counts: Sequence[int],
    device: str,
    say: Progress,
) -> Depth | None:
    """Which layers stay; None where all do in every shape."""
    if all(count == len(found.layers) for count in counts):
        return None

    def costs(sets: Iterable[Dropped], stage: str) -> dict[Dropped, float]:
        return priced(finished, source, sequences[:DEPTH_SEQUENCES], sets, device, say, stage)

    return choose_layers([layer.influence for layer in found.layers], counts, costs)


def _layers(depth: Depth | None, source: Checkpoint, count: int) -> tuple[int, ...]:
    return tuple(range(source.config.layers)) if depth is None else depth.kept[count]


def _numbers(
    source: HuggingFaceCheckpoint, kept: Kept, found: Importance, depth: Depth | None, text: Calibration
) -> dict[str, Any]:
    return {
        "model": source_hub_id(source.path) or source.path.name,
        "source": source_numbers(source.path),
        "stored": source.stored,
        "notes": [*source.notes, *text.notes],
        "teacher": sizes(source.config),
        "student": sizes(kept.config),
        "layers": layer_numbers(kept, found, depth),
        "hidden_energy_kept": hidden_share(kept, found),
        "hidden_channels": kept.hidden.tolist(),
    }


def _silent(stage: str, done: int, total: int) -> None:
    pass
