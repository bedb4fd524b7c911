"""The memory formula of `rockledge distill` beside real steps, and what checkpointing costs in speed.

    python -m bench.distil_memory

Teacher and student have the proportions of recipes/llama-3-8b-to-4b.yaml at an eighth of the width and of
the layers, random weights and random tokens. Steps of the real trainer run under PyTorch's
profiler, which reports every allocation; the peak of their sum, with the weights that were there before, is
compared with the formula. Tokens a second are of further steps without the profiler. Writes
bench/results/distil_memory.json.
"""

import gc
import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from rockledge.cli.terminal import table
from rockledge.distillation.dry_run import pruned_shape
from rockledge.distillation.memory import Setup, step_memory
from rockledge.distillation.packing import Packed
from rockledge.distillation.quiet import quiet_libraries
from rockledge.distillation.sequence_order import OrderedSequences
from rockledge.distillation.settings import Settings, settings
from rockledge.distillation.teacher import Teacher
from rockledge.distillation.training import Progress, Run, train
from rockledge.model.config import ModelConfig
from rockledge.model.hf_config import config_to_hf
from rockledge.synth import SHAPES

TARGET = Path(__file__).parent / "results" / "distil_memory.json"
LENGTH = 256
TEACHER = replace(
    SHAPES["8b"], hidden=512, layers=3, heads=4, kv_heads=1, ffn=1792, vocab=16032, context=LENGTH
)
STUDENT = pruned_shape(TEACHER, {"hidden": 384, "ffn": 1152})
GOAL = 0.1


@dataclass(frozen=True)
class Row:
    """One way to train: bytes by formula and by the allocator, and tokens a second."""

    bf16: bool
    checkpointing: bool
    online_teacher: bool
    formula: int
    measured: int
    tokens_per_second: float

    @property
    def off(self) -> float:
        """How far the formula is from what was measured."""
        return self.formula / self.measured - 1


def main() -> None:
    """Measures all ways and prints them."""
    rows = [
        measured(bf16, checkpointing, online)
        for bf16, checkpointing, online in (
            (False, False, True),
            (False, True, True),
            (False, True, False),
            (True, False, True),
            (True, True, True),
        )
    ]
    head = ("type", "checkpointing", "teacher", "formula, MB", "measured, MB", "off, %", "tok/s")
    shown = [
        (
            "bfloat16" if row.bf16 else "float32",
            "yes" if row.checkpointing else "no",
            "asked" if row.online_teacher else "none",
            f"{row.formula / 1e6:.0f}",
            f"{row.measured / 1e6:.0f}",
            f"{100 * row.off:+.1f}",
            f"{row.tokens_per_second:.0f}",
        )
        for row in rows
    ]
    print(table(head, shown))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps([{**asdict(row), "off": row.off} for row in rows], indent=2) + "\n")


def measured(
    bf16: bool,
    checkpointing: bool,
    online: bool,
    *,
    student: ModelConfig = STUDENT,
    teacher: ModelConfig = TEACHER,
    length: int = LENGTH,
) -> Row:
    """Two profiled steps and two timed ones."""
    asked = settings(
        {
            "bf16": bf16,
            "checkpointing": checkpointing,
            "sequence": length,
            "batch": 1,
            "tokens": 2 * length,
            "save_every": 1000,
            "data_weight": 0.0 if online else 1.0,
        }
    )
    learning, teaching = made_pair(student, teacher if online else None, asked)
    found = allocated(learning, teaching, asked, 2)
    begun = time.monotonic()
    steps(learning, teaching, asked, 2)
    seconds = time.monotonic() - begun
    formula = step_memory(
        student,
        teacher if online else None,
        Setup(tokens=length, bf16=bf16, checkpointing=checkpointing),
    )
    return Row(bf16, checkpointing, online, formula.peak, found, 2 * length / seconds)


def made_pair(student: ModelConfig, teacher: ModelConfig | None, asked: Settings) -> tuple[Any, Any]:
    """Random models of these shapes as they are trained and asked; no teacher for None."""
    dtype = torch.bfloat16 if asked.bf16 else torch.float32
    teaching = None if teacher is None else made(teacher).to(dtype).requires_grad_(False)
    return made(student), teaching


def allocated(learning: Any, teaching: Any, asked: Settings, count: int) -> int:
    """The most bytes that the weights and `count` steps take, as PyTorch's allocator counts them."""
    there: int = sum(
        parameter.numel() * parameter.element_size()
        for model in (learning, teaching)
        if model is not None
        for parameter in model.parameters()
    )
    gc.collect()  # what earlier rows left is freed in none of the next
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        steps(learning, teaching, asked, count)
    return there + int(peak(found))


def steps(
    learning: Any, teaching: Any, asked: Settings, count: int, progress: Progress = lambda *_: None
) -> None:
    """The steps of one run on random tokens."""
    vocabulary, rows, length = learning.config.vocab_size, count * asked.batch, asked.sequence
    ids = np.random.default_rng(0).integers(3, vocabulary, (rows, length))
    places = np.tile(np.arange(length), (rows, 1))
    text = Packed(ids, places, np.where(np.arange(length) > 0, ids, -100))
    teacher = None if teaching is None else Teacher(teaching, asked.top_k, vocabulary)
    with tempfile.TemporaryDirectory() as place, quiet_libraries():
        sequences = OrderedSequences(text, np.arange(rows))
        train(Run("steps", learning, sequences, None, asked, count, Path(place), teacher), progress)


def made(config: ModelConfig) -> Any:
    """A random model of that shape, float32."""
    from transformers import AutoConfig, AutoModelForCausalLM

    described = config_to_hf(config)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**described), dtype=torch.float32)


def peak(found: Any) -> int:
    """The most bytes that were allocated at a time, counted from where profiling began."""
    total = most = 0
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    return int(most)


if __name__ == "__main__":
    main()
