"""What a distillation is asked for: one record, whose fields are the flags of `distill` and the keys of a
recipe's `distill:` section."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from rockledge.errors import UsageError
from rockledge.recipe_file import Kind


@dataclass(frozen=True)
class Settings:
    """The loss of a token is (1 - `data_weight`) * KL + `data_weight` * cross-entropy + `hidden_weight` *
    hidden-state loss. `tokens` None means one pass over the data. `batch` is in sequences for each optimizer
    step, however many processes there are; `micro_batch` is what one device takes at a time.

    `learning_rate` None means 1e-4, and ten times that for LoRA; it falls along a cosine to
    `final_learning_rate` (None: a tenth of it), as in Minitron (arXiv 2408.11796). `adapt_tokens` None means
    as many as the student is given. With `quantization_aware`, bits a weight or the file of a recipe of
    `quantize`, the student learns as the artifact that it becomes: after `float_tokens` of its tokens in
    floats, by `grid_learning_rate` (None: the same); with `fixed_codes` only row scales and biases. With
    `synthesize` the teacher
    first writes so many questions and answers from `documents`, `synthesize_batch` at a time, and they are
    learnt too. `trainer` holds further arguments of transformers.TrainingArguments.

    `on_policy` is the number of steps of a last stage, in which the student writes answers of at most
    `on_policy_answer` tokens (None: half a sequence) and the teacher scores them. Its learning rate (None: a
    tenth of the first stage's) falls to a tenth along a cosine.
    """

    data: list[str] = field(default_factory=list)
    held_out: str | None = None
    held_out_share: float = 0.05
    tokens: int | None = None
    sequence: int = 1024
    batch: int = 8
    micro_batch: int = 1
    learning_rate: float | None = None
    final_learning_rate: float | None = None
    warmup_steps: int | None = None
    top_k: int = 64
    data_weight: float = 0.0
    hidden_weight: float = 0.0
    lora: int = 0
    quantization_aware: str | None = None
    float_tokens: int = 0
    grid_learning_rate: float | None = None
    fixed_codes: bool = False
    adapt_teacher: bool = False
    adapt_rank: int = 16
    adapt_tokens: int | None = None
    adapt_learning_rate: float = 2e-4
    on_policy: int = 0
    on_policy_answer: int | None = None
    on_policy_learning_rate: float | None = None
    bf16: bool = False
    checkpointing: bool = False
    save_every: int | None = None
    evaluate_every: int | None = None
    cache_logits: str | None = None
    cache_bytes: int = 64 << 30
    seed: int = 0
    documents: list[str] = field(default_factory=list)
    synthesize: int = 0
    synthesize_batch: int = 8
    trainer: dict[str, Any] = field(default_factory=dict)

    @property
    def learns_from_teacher(self) -> bool:
        """Whether the first stage needs the teacher's logits at all."""
        return self.data_weight < 1

    @property
    def rate(self) -> float:
        """The highest learning rate. LoRA takes about ten times that of full training
        (thinkingmachines.ai/blog/lora)."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-3 if self.lora else 1e-4

    @property
    def final_rate(self) -> float:
        """The learning rate at the end."""
        return self.rate / 10 if self.final_learning_rate is None else self.final_learning_rate

    @property
    def answer(self) -> int:
        """The most tokens of an answer that the student writes."""
        return self.sequence // 2 if self.on_policy_answer is None else self.on_policy_answer

    @property
    def on_policy_rate(self) -> float:
        """The highest learning rate of the on-policy stage."""
        return self.rate / 10 if self.on_policy_learning_rate is None else self.on_policy_learning_rate

    @property
    def grid_rate(self) -> float:
        """The highest learning rate in the grid."""
        return self.rate if self.grid_learning_rate is None else self.grid_learning_rate

    def float_steps(self, steps: int) -> int:
        """Of so many optimizer steps those in floats: whole ones, and the last is in the grid in any case."""
        return min(self.float_tokens // (self.sequence * self.batch), steps - 1)

    def steps(self, sequences: int) -> int:
        """Optimizer steps for data of so many sequences."""
        wanted = sequences if self.tokens is None else -(-self.tokens // self.sequence)
        return max(1, -(-wanted // self.batch))

    def warmup(self, steps: int) -> int:
        """Steps of rising learning rate: what was asked for, or a tenth of all and at most 40."""
        return min(40, steps // 10) if self.warmup_steps is None else min(self.warmup_steps, steps)


def kinds() -> dict[str, Kind]:
    """The kind of every key, for the recipe file."""
    hints = get_type_hints(Settings)
    found: dict[str, Kind] = {}
    for one in fields(Settings):
        hint = hints[one.name]
        options = [kind for kind in getattr(hint, "__args__", ()) if kind is not type(None)]
        union = hasattr(hint, "__args__") and not hasattr(hint, "__origin__")
        found[one.name] = options[0] if union else hint
    return found


def settings(values: Mapping[str, Any]) -> Settings:
    """The settings of these values, checked: UsageError names the first that makes no sense."""
    made = Settings(**values)
    for name, low, high in _BOUNDS:
        value = getattr(made, name)
        if value is not None and not low <= value <= high:
            flag = name.replace("_", "-")
            most = "2^62" if high == _MOST else f"{high:g}"
            limit = f"of at least {low:g}" if high == _MOST and value < low else f"from {low:g} to {most}"
            raise UsageError(f"{flag} is {value:g}, expected a number {limit}")
    if made.batch % made.micro_batch:
        raise UsageError(
            f"a batch of {made.batch} sequences cannot be cut into micro-batches of {made.micro_batch}; "
            "choose a multiple"
        )
    highest = min(made.rate, made.grid_rate)  # of each stage
    if made.final_learning_rate is not None and made.final_learning_rate > highest:
        raise UsageError(
            f"the learning rate falls, but final-learning-rate is {made.final_learning_rate:g} and the "
            f"highest is {highest:g}; choose a smaller one"
        )
    if bool(made.synthesize) != bool(made.documents):
        raise UsageError(
            "synthesize says how many questions and answers are written, and documents from what; give both"
        )
    if made.hidden_weight and made.cache_logits:
        raise UsageError(
            "hidden-weight needs the teacher in every step and cache-logits is there to do without it; "
            "leave one of them out"
        )
    if made.hidden_weight and made.lora:
        raise UsageError("hidden-weight and lora do not go together; leave one of them out")
    for name in ("lora", "hidden_weight", "on_policy"):
        if made.quantization_aware is not None and getattr(made, name):
            raise UsageError(
                f"quantization-aware and {name.replace('_', '-')} do not go together; leave one of them out"
            )
    for name in ("float_tokens", "grid_learning_rate", "fixed_codes"):
        if made.quantization_aware is None and getattr(made, name):
            raise UsageError(
                f"{name.replace('_', '-')} is for quantization-aware training; add quantization-aware, or "
                "leave it out"
            )
    if made.on_policy and made.answer >= made.sequence:
        raise UsageError(
            f"answers of {made.answer} tokens leave no room for a prompt in a sequence of {made.sequence}; "
            "choose a smaller on-policy-answer, or a larger sequence"
        )
    if made.cache_logits and not made.learns_from_teacher:
        raise UsageError("a data-weight of 1 needs no logits of the teacher; leave cache-logits out")
    if made.hidden_weight and not made.learns_from_teacher:
        raise UsageError("a data-weight of 1 leaves the teacher out; leave hidden-weight out too")
    if taken := sorted(_OURS & made.trainer.keys()):
        raise UsageError(
            f"{taken[0]} of the Trainer is set by {_OURS_BY.get(taken[0], 'distill itself')}; leave it out"
        )
    try:
        json.dumps(made.trainer, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:  # a date of YAML, .nan
        raise UsageError(f"trainer has a value that JSON cannot hold ({error}); write another") from error
    return made


_MOST = float(1 << 62)
_BOUNDS = (
    ("held_out_share", 0.0, 0.5),
    ("tokens", 1, _MOST),
    ("sequence", 8, 1 << 20),
    ("batch", 1, 1 << 20),
    ("micro_batch", 1, 1 << 20),
    ("learning_rate", 1e-12, 1),
    ("final_learning_rate", 0, 1),
    ("warmup_steps", 0, _MOST),
    ("top_k", 1, 1 << 20),
    ("data_weight", 0, 1),
    ("hidden_weight", 0, 1e6),
    ("lora", 0, 1 << 14),
    ("float_tokens", 0, _MOST),
    ("grid_learning_rate", 1e-12, 1),
    ("adapt_rank", 1, 1 << 14),
    ("adapt_tokens", 1, _MOST),
    ("adapt_learning_rate", 1e-12, 1),
    ("on_policy", 0, _MOST),
    ("on_policy_answer", 1, 1 << 20),
    ("on_policy_learning_rate", 1e-12, 1),
    ("save_every", 1, _MOST),
    ("evaluate_every", 1, _MOST),
    ("cache_bytes", 1, _MOST),
    ("seed", 0, (1 << 32) - 1),
    ("synthesize", 0, 10_000_000),
    ("synthesize_batch", 1, 1 << 12),
)
_OURS_BY = {
    "max_steps": "--tokens",
    "num_train_epochs": "--tokens",
    "learning_rate": "--learning-rate",
    "per_device_train_batch_size": "--micro-batch",
    "gradient_accumulation_steps": "--batch",
    "bf16": "--bf16",
    "gradient_checkpointing": "--checkpointing",
    "seed": "--seed",
    "data_seed": "--seed",
    "save_steps": "--save-every",
    "eval_steps": "--evaluate-every",
    "warmup_steps": "--warmup-steps",
    "output_dir": "-o and --work",
}
# What resuming, counting and the loss depend on.
_OURS = frozenset(_OURS_BY) | {
    "accelerator_config",
    "auto_find_batch_size",
    "average_tokens_across_devices",
    "eval_strategy",
    "ignore_data_skip",
    "label_names",
    "label_smoothing_factor",
    "logging_nan_inf_filter",
    "per_device_eval_batch_size",
    "push_to_hub",
    "remove_unused_columns",
    "resume_from_checkpoint",
    "save_only_model",
    "save_strategy",
    "save_total_limit",
    "train_sampling_strategy",
}
