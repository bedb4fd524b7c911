"""What a distillation would take, from shapes alone: parameters, memory, time and cost. Nothing is loaded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rockledge.distillation.cost import (
    HARDWARE_SOURCES,
    Hardware,
    cost,
    forward_flops,
    token_flops,
    writing_seconds,
)
from rockledge.distillation.memory import Setup, lora_parameters, step_memory, written_bytes
from rockledge.distillation.settings import Settings
from rockledge.errors import UsageError
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig
from rockledge.model.huggingface import read_config_alone
from rockledge.model.known_shapes import find_shape, nearest_shapes
from rockledge.places import expanded
from rockledge.pruning.shape import Shape, check_widths, kv_heads_for, pruned_config, shape_of
from rockledge.recipe_file import Kind, RecipeFile

_GIB = 1 << 30
# A prompt with a passage and its task, and an output of the length that is asked for: a pair takes at least
# one. Writing is bound by memory rather than operations, so its time is a lower bound too.
_PAIR_TOKENS = 600

_HARDWARE: dict[str, Kind] = {
    "gpu": str,
    "gpus": int,
    "memory_gb": float,
    "bandwidth_tb_s": float,
    "peak_tflops": float,
    "utilisation": float,
    "usd_per_gpu_hour": float,
}
# From and to what each number makes sense; the least is a small part of any real one.
_HARDWARE_BOUNDS: dict[str, tuple[float, float]] = {
    "gpus": (1, 1e6),
    "memory_gb": (1e-3, 1e6),
    "bandwidth_tb_s": (1e-3, 1e6),
    "peak_tflops": (1e-3, 1e9),
    "utilisation": (1e-3, 1),
    "usd_per_gpu_hour": (0, 1e6),
}


@dataclass(frozen=True)
class DryRun:
    """The two shapes, and how the student would be trained. `tokens` are those of the data, which nobody has
    read yet, so the settings must say them."""

    teacher: ModelConfig
    student: ModelConfig
    settings: Settings
    hardware: Hardware
    sources: Mapping[str, str]

    def body(self) -> dict[str, Any]:
        """The object of `--json`."""
        settings, hardware = self.settings, self.hardware
        if settings.tokens is None:
            raise UsageError("a dry run reads no data, so it needs --tokens; say how many are to be learnt")
        steps = settings.steps(0)
        learnt = steps * settings.batch * settings.sequence
        cached = settings.cache_logits is not None
        asked = None if cached or not settings.learns_from_teacher else self.teacher
        setup = Setup(
            tokens=settings.micro_batch * settings.sequence,
            bf16=settings.bf16,
            checkpointing=settings.checkpointing,
            micro_batches=-(-settings.batch // (settings.micro_batch * hardware.gpus)),
            devices=hardware.gpus,
            lora=settings.lora,
        )
        online = self.teacher if settings.on_policy else asked
        memory = step_memory(self.student, online, setup)
        parts, peak, seconds = dict(memory.parts), memory.peak, 0.0
        each = token_flops(
            self.student,
            asked,
            settings.sequence,
            checkpointing=settings.checkpointing,
            lora=settings.lora > 0,
        )
        work = each * learnt
        if cached:
            work += forward_flops(self.teacher, settings.sequence) * learnt
        if settings.adapt_teacher:
            adapting = min(learnt, settings.adapt_tokens or learnt)
            work += adapting * token_flops(
                self.teacher, None, settings.sequence, checkpointing=settings.checkpointing, lora=True
            )
        written = settings.synthesize * _PAIR_TOKENS
        work += forward_flops(self.teacher, _PAIR_TOKENS) * written
        if settings.on_policy:
            work += self._on_policy_flops()
            seconds = writing_seconds(self.student, settings.on_policy * settings.answer, hardware)
            parts["written"] = written_bytes(self.student, settings.batch * settings.sequence, settings.bf16)
            peak = max(peak, memory.always + parts["written"])
        total = cost(work, hardware, seconds)
        parameters = decoder(self.student).parameters
        return {
            "basis": "modelled",
            "teacher": {"parameters": decoder(self.teacher).parameters, "shape": _sizes(self.teacher)},
            "student": {
                "parameters": parameters,
                "learnt_parameters": lora_parameters(self.student, settings.lora)
                if settings.lora
                else parameters,
                "shape": _sizes(self.student),
            },
            "training": {
                "tokens": learnt,
                "steps": steps,
                "sequence": settings.sequence,
                "batch": settings.batch,
                "micro_batch": settings.micro_batch,
                "learning_rate": settings.rate,
                "final_learning_rate": settings.final_rate,
                "warmup_steps": settings.warmup(steps),
                "top_k": settings.top_k,
                "lora": settings.lora,
                "checkpointing": settings.checkpointing,
                "bf16": settings.bf16,
                "on_policy": self._on_policy() if settings.on_policy else None,
            },
            "synthesis": {"pairs": settings.synthesize, "least_tokens": written},
            "memory_gb_per_gpu": {
                **{name: round(size / _GIB, 2) for name, size in parts.items()},
                "peak": round(peak / _GIB, 2),
                "fits": peak <= hardware.memory_gb * _GIB,
            },
            "time": {
                "flops": total.flops,
                "gpu_hours": round(total.gpu_hours, 2),
                "hours": round(total.hours, 2),
                "usd": round(total.usd, 2),
            },
            "hardware": asdict(hardware),
            "sources": dict(self.sources),
        }

    def _on_policy(self) -> dict[str, int | float]:
        settings = self.settings
        return {
            "steps": settings.on_policy,
            "answers": settings.on_policy * settings.batch,
            "longest_answer": settings.answer,
            "learning_rate": settings.on_policy_rate,
        }

    def _on_policy_flops(self) -> float:
        """Of reading the prompts and learning the answers, with prompts as long as there is room for."""
        settings = self.settings
        learning = token_flops(
            self.student,
            self.teacher,
            settings.sequence,
            checkpointing=settings.checkpointing,
            lora=settings.lora > 0,
        )
        each = learning * settings.sequence
        each += forward_flops(self.student, settings.sequence) * (settings.sequence - settings.answer)
        return settings.on_policy * settings.batch * each


def dry_run(teacher: str, student: str | None, settings: Settings, recipe: RecipeFile | None) -> DryRun:
    """The shapes of a teacher and a student, which are directories with a config.json or well-known names; a
    student that is to be pruned has the teacher's, with the sizes of the recipe's `prune:`."""
    values = {} if recipe is None else recipe.section("hardware", _HARDWARE)
    for key, (least, most) in _HARDWARE_BOUNDS.items():
        if key in values and not least <= values[key] <= most:
            raise UsageError(
                f"the recipe's hardware.{key} is {values[key]:g}, expected a number from {least:g} to "
                f"{most:g}"
            )
    hardware = Hardware(**values)
    if settings.on_policy and hardware.gpus > 1:
        raise UsageError(
            f"on-policy training runs on one GPU, and the recipe's hardware has {hardware.gpus}; leave "
            "on-policy out"
        )
    big = config_of(teacher)
    if student is not None:
        small = config_of(student)
    else:
        pruned = {} if recipe is None else dict(recipe.sections.get("prune", {}))
        small = pruned_shape(big, pruned)
    _check_together(settings, hardware, {"student": small, "teacher": big})
    sources = {**HARDWARE_SOURCES, **({} if recipe is None else recipe.sources)}
    return DryRun(big, small, settings, hardware, sources)


def _check_together(settings: Settings, hardware: Hardware, models: Mapping[str, ModelConfig]) -> None:
    """Raises UsageError for what a run would refuse: a forecast of it would be of nothing."""
    share = settings.micro_batch * hardware.gpus
    if settings.batch % share:
        raise UsageError(
            f"a batch of {settings.batch} sequences cannot be shared by {hardware.gpus} GPUs with "
            f"micro-batches of {settings.micro_batch}; choose a multiple of {share}"
        )
    for role, config in models.items():
        if settings.sequence > config.context:
            raise UsageError(
                f"a sequence of {settings.sequence} tokens is longer than the {role}'s context of "
                f"{config.context}; choose a smaller --sequence"
            )


def config_of(name: str) -> ModelConfig:
    """The numbers of a model: what its config.json says, or those of a well-known name."""
    path = expanded(name)
    if path.exists():
        return read_config_alone(Path(path)).config
    known = find_shape(name)
    if known is None:
        like = ", ".join(nearest_shapes(name))
        raise UsageError(
            f"{name} is neither a directory nor a well-known model"
            + (f" such as {like}" if like else "")
            + "; give a directory with a config.json"
        )
    return known.config


def pruned_shape(teacher: ModelConfig, sizes: Mapping[str, Any]) -> ModelConfig:
    """The teacher with these sizes, as `rockledge prune` would make it; UsageError where they name none, or
    one that cannot be."""
    names = tuple(field.name for field in fields(Shape))
    chosen: dict[str, Any] = {name: sizes[name] for name in names if name in sizes}
    if not chosen:
        raise UsageError(
            f"the recipe names neither a student nor a size to prune to ({', '.join(names)}); add one"
        )
    for name, value in chosen.items():
        if type(value) is not int or not 0 < value <= getattr(teacher, name):
            raise UsageError(
                f"the student's {name} is {str(value)[:40]}, expected 1 to the teacher's "
                f"{getattr(teacher, name)}"
            )
    shape = replace(shape_of(teacher), **chosen)
    shape = replace(shape, kv_heads=kv_heads_for(teacher, shape.heads, chosen.get("kv_heads")))
    check_widths(teacher, shape)
    return pruned_config(teacher, shape)


def _sizes(config: ModelConfig) -> dict[str, int | bool]:
    names = ("hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocab", "tied")
    return {name: getattr(config, name) for name in names}
