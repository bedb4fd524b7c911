"""A model's rotary scaling in the words of other programs: an artifact keeps only divisors of frequencies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rockledge.model.config import ModelConfig
from rockledge.model.rope import rope_divisors
from rockledge.model.rope_scaling import yarn_divisors, yarn_magnitude

# Llama 3.1 and 3.2; their factors differ, the other settings do not.
_LLAMA3: Final = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_NEAR: Final = 2e-7  # GGUF files hold divisors in float32


@dataclass(frozen=True)
class RopeWords:
    """`kind`: "none", "linear", "llama3", "dynamic", "yarn" or "longrope", which lists every divisor;
    `settings`: its keys as Hugging Face spells them."""

    kind: str
    settings: dict[str, Any]


def rope_words(config: ModelConfig) -> RopeWords:
    """The simplest description from which the model's own divisors come out again."""
    divisors, turned = config.rope_divisors, 2 * len(config.rope_divisors)
    if config.rope_dynamic:
        return RopeWords("dynamic", {"factor": config.rope_dynamic})
    if not config.rope_long_divisors and config.rope_factor == 1:
        if all(divisor == 1 for divisor in divisors):
            return RopeWords("none", {})
        factor = max(divisors)
        if min(divisors) == factor:
            return RopeWords("linear", {"factor": factor})
        for settings in ({"factor": float(round(factor)), **_LLAMA3}, {"factor": factor, **_LLAMA3}):
            if _near(rope_divisors({"rope_type": "llama3", **settings}, turned, config.rope_theta), divisors):
                return RopeWords("llama3", settings)
    if not config.rope_long_divisors and (yarn := _yarn(config)) is not None:
        return RopeWords("yarn", yarn)
    return RopeWords(
        "longrope",
        {
            "short_factor": list(divisors),
            "long_factor": list(config.rope_long_divisors or divisors),
            "original_max_position_embeddings": config.rope_original or config.context,
            "attention_factor": config.rope_factor,
        },
    )


def _yarn(config: ModelConfig) -> dict[str, Any] | None:
    """YaRN's settings with its usual betas, where they give the divisors."""
    factor = max(config.rope_divisors)
    if factor <= 1:
        return None
    for original in sorted(
        {round(config.context / factor), config.context, *(1 << n for n in range(10, 18))}
    ):
        found = yarn_divisors(
            2 * len(config.rope_divisors), config.rope_theta, factor, original, beta_fast=32.0, beta_slow=1.0
        )
        if _near(found, config.rope_divisors):
            settings = {"factor": factor, "original_max_position_embeddings": original}
            if config.rope_factor != yarn_magnitude(factor):
                settings["attention_factor"] = config.rope_factor
            return settings
    return None


def _near(found: Sequence[float], wanted: Sequence[float]) -> bool:
    return all(abs(one - other) <= _NEAR * other for one, other in zip(found, wanted, strict=True))
