"""What `rockledge distill --dry-run` says of a recipe's memory beside real steps, both of a smaller shape.

    python -m bench.recipe_memory [--recipe recipes/llama-3-8b-to-4b.yaml] [--by 8]

The recipe is rewritten with the widths of teacher and student and the vocabulary divided by `--by`, three
layers, sequences of 256 tokens, one GPU, and a step of two micro-batches. All other settings are the recipe's
own: precision, checkpointing, what is asked of the teacher, what learns. The dry run of that file is compared
with two steps by the real trainer, whose allocations PyTorch's profiler counts.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path
from typing import Any, Final

import yaml

from bench.distil_memory import allocated, made_pair
from rockledge.cli.terminal import table
from rockledge.distillation.dry_run import DryRun, config_of, dry_run
from rockledge.distillation.settings import kinds, settings
from rockledge.model.config import ModelConfig
from rockledge.model.hf_config import config_to_hf
from rockledge.recipe_file import read_recipe_file

RECIPE: Final = Path(__file__).parents[1] / "recipes" / "llama-3-8b-to-4b.yaml"
GOAL: Final = 0.1
_LAYERS: Final = 3
_LENGTH: Final = 256


@dataclass(frozen=True)
class Compared:
    """Bytes of the dry run by part, their peak, and what was measured."""

    parts: dict[str, float]
    dry_run: int
    measured: int

    @property
    def off(self) -> float:
        """How far the dry run is from what was measured."""
        return self.dry_run / self.measured - 1


def compared(recipe: Path, by: int) -> Compared:
    """The recipe with its sizes divided by `by`: as its dry run says, and as it is."""
    with tempfile.TemporaryDirectory() as folder:
        small = smaller(recipe, by, Path(folder))
    memory = small.body()["memory_gb_per_gpu"]
    asks = small.settings.learns_from_teacher and small.settings.cache_logits is None
    learning, teaching = made_pair(small.student, small.teacher if asks else None, small.settings)
    found = allocated(learning, teaching, small.settings, 2)
    parts = {name: size for name, size in memory.items() if name not in ("peak", "fits")}
    return Compared(parts, round(memory["peak"] * 2**30), found)


def smaller(recipe: Path, by: int, folder: Path) -> DryRun:
    """The dry run of a smaller recipe, which is written to `folder` with its teacher's config.json."""
    said: dict[str, Any] = yaml.safe_load(recipe.read_bytes())
    (folder / "config.json").write_text(dumps(config_to_hf(_smaller(config_of(said["teacher"]), by))))
    pruned = {key: value // by for key, value in said["prune"].items() if key in ("hidden", "ffn")}
    learnt = said["distill"] | {"sequence": _LENGTH}
    micro = learnt.get("micro_batch", 1)
    learnt |= {"batch": 2 * micro, "tokens": 4 * micro * learnt["sequence"]}
    hardware = said.get("hardware", {}) | {"gpus": 1}
    file = folder / "recipe.yaml"
    file.write_text(
        yaml.safe_dump(
            {"version": 1, "teacher": str(folder), "prune": pruned, "distill": learnt, "hardware": hardware}
        )
    )
    read = read_recipe_file(file)
    return dry_run(str(folder), None, settings(read.section("distill", kinds())), read)


def _smaller(config: ModelConfig, by: int) -> ModelConfig:
    return replace(
        config,
        hidden=config.hidden // by,
        ffn=config.ffn // by,
        heads=max(1, config.heads // by),
        kv_heads=max(1, config.kv_heads // by),
        vocab=config.vocab // by,
        layers=_LAYERS,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--by", type=int, default=8)
    args = parser.parse_args(arguments)
    found = compared(args.recipe, args.by)
    rows = [(name, f"{size * 2**30 / 1e6:.0f}") for name, size in found.parts.items()]
    rows += [("peak", f"{found.dry_run / 1e6:.0f}"), ("measured", f"{found.measured / 1e6:.0f}")]
    print(table((args.recipe.name, "MB"), rows))
    print(f"\nThe dry run is {100 * found.off:+.1f} % off.")
    return 0 if abs(found.off) < GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
