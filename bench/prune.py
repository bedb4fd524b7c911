"""What pruning SmolLM2-135M to a share of its layers costs, before anything is distilled.

    python -m bench.prune [--body 0.6] [--by width] [--tokens 3072] [--made DIR]

Prunes the table model of `bench.accuracy_models` by `rockledge prune` and prints its shapes with their losses
on held-out calibration text, and the perplexity of teacher and student on Alice in Wonderland (windows of
512). `--made` shows a student that is there already. Beside pruning by width, by depth takes about half as
long again, and both twice as long; 512 tokens take half of the time of 3,072.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path
from typing import Any

import torch

from bench.accuracy_models import MODELS
from bench.models import alice
from rockledge.errors import RockledgeError
from rockledge.eval.windows import cut_windows
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.tokenizer import Tokenizer
from rockledge.pruning.choice import candidates
from rockledge.pruning.estimate import estimate_prune
from rockledge.pruning.prune import loss_of, prune
from rockledge.pruning.request import LENGTH, PruneRequest, request_of
from rockledge.pruning.teacher import open_teacher
from rockledge.pruning.write import NUMBERS
from rockledge.quantization.estimate import measured_speed
from rockledge.units import show_duration

_WINDOWS = 16


def lines(report: Mapping[str, Any], texts: Mapping[str, tuple[float, float]]) -> list[str]:
    """The tables: shapes that were tried, and by text the losses of teacher and student, nats a token."""
    found = [
        "| shape | layers | hidden | feed-forward | heads | of the layers | loss as cut | refitted |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in report["tried"]:
        name = one["name"] + (" (chosen)" if one["chosen"] else "")
        found.append(
            f"| {name} | {one['layers']} | {one['hidden']} | {one['ffn']} | {one['heads']}/{one['kv_heads']} "
            f"| {one['body_share']:.0%} | {one['loss_cut']:.2f} | {one['loss']:.2f} |"
        )
    found += ["", "| text | teacher's perplexity | student's |", "| --- | ---: | ---: |"]
    found += [f"| {text} | {exp(a):.1f} | {exp(b):.1f} |" for text, (a, b) in texts.items()]
    return found


def _alice_loss(path: Path) -> float:
    checkpoint = open_checkpoint(path)
    ids = Tokenizer.from_files(checkpoint.files()).encode(alice().read_text(encoding="utf-8"), bos=False)
    return loss_of(checkpoint, torch.tensor(cut_windows(ids, 512, _WINDOWS)), "cpu")


def _estimate(teacher: Path, asked: PruneRequest) -> str:
    """What `rockledge prune` says before it begins, at the speed of this machine now."""
    config = open_teacher(teacher).config
    shapes = [one.shape for one in candidates(config, asked)]
    speed, length = measured_speed("cpu"), min(LENGTH, config.context)
    return show_duration(
        estimate_prune(config, shapes, tokens=asked.tokens, length=length, speed=speed).seconds
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the bench."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--body", type=float, default=0.6)
    parser.add_argument("--by", choices=("depth", "width", "both"))
    parser.add_argument("--tokens", type=int, default=3072)
    parser.add_argument("--made", type=Path)
    args = parser.parse_args(arguments)
    teacher = MODELS["smollm2-135m"].files()[0]
    with tempfile.TemporaryDirectory() as folder:
        student = args.made or Path(folder) / "student"
        try:
            if args.made is None:
                asked = request_of({"body": args.body, "by": args.by, "tokens": args.tokens})
                print(f"bench.prune: about {_estimate(teacher, asked)}", file=sys.stderr)
                prune(teacher, student, asked)
            report = json.loads((student / NUMBERS).read_text(encoding="utf-8"))
            texts = {
                "held-out calibration text": (report["teacher_loss"], report["written_loss"]),
                "Alice in Wonderland": (_alice_loss(teacher), _alice_loss(student)),
            }
        except RockledgeError as error:
            print(f"bench.prune: {error}", file=sys.stderr)
            return 1
    print("\n".join(lines(report, texts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
