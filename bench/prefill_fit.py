"""The seconds of an engine's terms from prompts that were published: errors of log(modelled / published), and
those far beyond a tenth hardly count.

A release that takes twice as long as the next one, or a board whose memory is slow, is no noise around the
formula, and squares would let a few of them move everything (Cauchy's loss of SciPy's `least_squares`).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from bench.prefill_time import ENGINES, TERMS, PrefillConstants
from bench.published_prefill import Prompt

Floats = npt.NDArray[np.float64]
NEAR: Final = 0.1
"""Of a logarithm: errors below it count by their square."""
_WIDEST: Final = (1e-15, 1.0)
"""Seconds that any term stays in."""


def fit_prefill(prompts: Sequence[Prompt]) -> PrefillConstants:
    """Of the backend of `prompts`, from several starts. Raises ValueError without prompts, or where
    none of them has anything of a term that no other stands in for."""
    if not prompts:
        raise ValueError("no prompts to fit constants on")
    engine = ENGINES[prompts[0].backend]
    amounts = {name: np.array([TERMS[name](prompt) for prompt in prompts]) for name in engine.fitted}
    unseen = [name for name, of in amounts.items() if not of.any()]
    for name in unseen:
        del amounts[name]
        if engine.instead.get(name) not in amounts:
            raise ValueError(f"no prompt of {prompts[0].backend} tells {name}")
    counts = np.array(list(amounts.values())).T
    known = {name: fact.seconds for name, fact in engine.known.items()}
    rest = np.array([PrefillConstants(known).seconds(prompt) for prompt in prompts])
    published = np.array([prompt.seconds for prompt in prompts])

    def errors(logs: Floats) -> Floats:
        return np.asarray(np.log((counts @ np.exp(logs) + rest) / published))

    best: tuple[float, Floats] | None = None
    low, high = np.log(_WIDEST)
    for share in (0.1, 0.5, 1.0):
        # As if each took an even share of the time of a prompt that has it.
        start = [np.median(published[of > 0] / of[of > 0]) * share / len(amounts) for of in counts.T]
        found = least_squares(
            errors, np.log(start), bounds=(low, high), loss="cauchy", f_scale=NEAR, xtol=1e-10, ftol=1e-10
        )
        if best is None or found.cost < best[0]:
            best = float(found.cost), found.x
    assert best is not None
    fitted = dict(zip(amounts, np.exp(best[1]).tolist(), strict=True))
    return PrefillConstants(known | fitted | {name: fitted[engine.instead[name]] for name in unseen})
