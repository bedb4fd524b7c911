"""The table of checks that look at one matrix. A new one is a file here and a line in the table."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from rockledge.doctor.checks import row_scales, tables, truncation, turns, unlike
from rockledge.doctor.finding import Finding
from rockledge.doctor.stored_linear import StoredLinear

LinearCheck = Callable[[StoredLinear], Iterator[Finding]]

LINEAR_CHECKS: Mapping[str, LinearCheck] = MappingProxyType(
    {
        "turns": turns.check_turns,
        "truncation": truncation.check_truncation,
        "tables": tables.check_tables,
        "row_scales": row_scales.check_row_scales,
        "unlike": unlike.check_unlike,
    }
)
"""Of one matrix beside its float original, the most telling first: one fault looks like another to the checks
below its own, so that only the first which finds something is heard."""
