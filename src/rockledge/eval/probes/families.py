"""The table of probe families. A new one is a file with `ask` and a line here."""

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
from rockledge.eval.probes.probe import Ask, Probe, make_probes

FAMILIES: Mapping[str, Ask] = MappingProxyType(
    {
        "arithmetic": arithmetic.ask,
        "comparison": comparison.ask,
        "transitivity": transitivity.ask,
        "negation": negation.ask,
        "counting": counting.ask,
        "sorting": sorting.ask,
        "dates_and_units": dates.ask,
    }
)

EXAMPLES = 3
"""Solved questions in front of each probe: without them a small base model does not see the task."""


def all_probes(each: int, seed: int = 0) -> list[Probe]:
    """`each` probes of every family, the same for the same seed."""
    return [probe for name, ask in FAMILIES.items() for probe in make_probes(name, ask, each, seed, EXAMPLES)]
