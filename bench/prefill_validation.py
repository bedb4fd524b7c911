"""The time of prompts against what others published: how far off it is for models and sources unseen.

`bench/board_validation.py` prints this beside decode. Each engine has terms of its own
(`bench/prefill_time.py`), fitted without the model that is predicted and again without the source. Beside
it: one rate of products for everything (the baseline), fitted the same way; and what nothing can be nearer
than: figures of other sources for the same model, format and length, and all other figures of these, so that
releases of one runtime count too.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from bench.board_validation_plot import Pair
from bench.left_out import Apart, Error, error, goals_of, left_out, others, parts_of, show_errors, source
from bench.prefill_fit import fit_prefill
from bench.prefill_time import ENGINES, Known, PrefillConstants
from bench.published_decode import LeftOut
from bench.published_prefill import Prompt

PARTS: Final[tuple[tuple[str, Callable[[Prompt], bool]], ...]] = (
    ("below 1B", lambda prompt: prompt.of_layers < 1e9),
    ("1B to 3B", lambda prompt: 1e9 <= prompt.of_layers < 3e9),
    ("3B to 6B", lambda prompt: 3e9 <= prompt.of_layers < 6e9),
    ("from 6B", lambda prompt: prompt.of_layers >= 6e9),
    ("up to 64 tokens", lambda prompt: prompt.tokens <= 64),
    ("from 1024 tokens", lambda prompt: prompt.tokens >= 1024),
    ("groups", lambda prompt: prompt.group > 0),
)
BASELINE: Final = "one rate"


@dataclass(frozen=True)
class PrefillValidation:
    """Of a backend: the constants with all prompts, which of them were `fitted` and which `known`; errors
    without the model and without the source (None with one source) that are predicted; of other sources'
    figures of the same, and of all other figures (None where there are none); parts of `model_out` by name;
    goals met without the model and without the source, None for few prompts."""

    backend: str
    sources: int
    constants: PrefillConstants
    fitted: tuple[str, ...]
    known: dict[str, Known]
    model_out: Apart
    source_out: Apart | None
    others: Error | None
    repeated: Error | None
    parts: dict[str, Apart]
    goals: dict[str, bool] | None
    pairs: tuple[Pair, ...]


def _formula(prompts: Sequence[Prompt]) -> Callable[[Prompt], float]:
    return fit_prefill(prompts).tok_s


def _baseline(prompts: Sequence[Prompt]) -> Callable[[Prompt], float]:
    rate = float(np.median([prompt.macs / prompt.seconds for prompt in prompts]))
    return lambda prompt: prompt.tokens * rate / prompt.macs


def shape(prompt: Prompt) -> str:
    """What is left out together: models of one shape, such as Qwen2-1.5B and what was made of it."""
    return f"{prompt.of_layers} {prompt.head} {prompt.layers}"


def configuration(prompt: Prompt) -> str:
    """Model, format, group and length: what nothing but the source or the release can make differ."""
    return f"{shape(prompt)} {sorted(prompt.weights)} {prompt.group} {prompt.tokens}"


def validate_prefill(backend: str, prompts: Sequence[Prompt]) -> PrefillValidation:
    """The formula against the prompts of one backend."""
    by_model, model_base = (left_out(prompts, fitted, shape) for fitted in (_formula, _baseline))
    model_out, source_out = Apart(error(by_model), error(model_base)), None
    sources = len(set(map(source, prompts)))
    if sources > 1:
        by_source = [left_out(prompts, fitted, source) for fitted in (_formula, _baseline)]
        source_out = Apart(*map(error, by_source))
    engine = ENGINES[backend]
    return PrefillValidation(
        backend=backend,
        sources=sources,
        constants=fit_prefill(prompts),
        fitted=engine.fitted,
        known=engine.known,
        model_out=model_out,
        source_out=source_out,
        others=others(prompts, configuration),
        repeated=others(prompts, configuration, sources=False),
        parts=parts_of(by_model, model_base, PARTS),
        goals=goals_of(model_out, source_out),
        pairs=tuple(
            Pair(prompt.tok_s, tok_s, base)
            for (prompt, tok_s), (_, base) in zip(by_model, model_base, strict=True)
        ),
    )


def show_prefill(found: Sequence[PrefillValidation], left: Sequence[LeftOut]) -> None:
    """For people."""
    print("\nthe same of prompts; others: what other sources saw of the same, repeated: and other releases")
    columns = {"others": lambda one: one.others, "repeated": lambda one: one.repeated}
    show_errors(found, BASELINE, columns)
    print("\nps of each term of a prompt")
    for one in found:
        for name, seconds in one.constants.seconds_of.items():
            whence = "fitted" if name in one.fitted else one.known[name].source
            print(f"{one.backend:18}{name:14}{1e12 * seconds:14.2f}  {whence}")
    print("\nprompts left out")
    for reason, rows in Counter(one.reason for one in left).most_common():
        print(f"{rows:5}  {reason}")


def prefill_body(found: Sequence[PrefillValidation], left: Sequence[LeftOut]) -> dict[str, Any]:
    """What is written."""
    reasons = Counter(one.reason for one in left)
    return {"prefill": [asdict(one) for one in found], "prefill_left_out": dict(reasons.most_common())}
