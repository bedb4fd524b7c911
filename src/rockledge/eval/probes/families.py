"""The table of probe families. A new one is a file with `question` and a line here."""

from collections.abc import Mapping
from types import MappingProxyType

from rockledge.eval.probes import (
    arithmetic,
    comparison,
    counting,
    dates,
    negation,
    sorting,
    transitivity,
)
from rockledge.eval.probes.probe import Probe, QuestionMaker, make_probes

FAMILIES: Mapping[str, QuestionMaker] = MappingProxyType(
    {
        "arithmetic": arithmetic.question,
        "comparison": comparison.question,
        "transitivity": transitivity.question,
        "negation": negation.question,
        "counting": counting.question,
        "sorting": sorting.question,
        "dates_and_units": dates.question,
    }
)

EXAMPLES = 3
"""Solved questions in front of each probe: without them a small base model does not see the task."""


def all_probes(each: int, seed: int = 0) -> list[Probe]:
    """`each` probes of every family, the same for the same seed."""
    return [
        probe for name, make in FAMILIES.items() for probe in make_probes(name, make, each, seed, EXAMPLES)
    ]
