"""The fixed rule: whole matrices covered, no more bytes than there is room for, what matters most is
widest."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.artifact import packed_size
from rockledge.conversion.convert import plan_conversion
from rockledge.conversion.widths import fixed_widths
from rockledge.errors import BudgetError
from rockledge.formats.bands import check_bands
from rockledge.model.block import decoder
from rockledge.synth import SHAPES


@settings(max_examples=25)
@given(shape=st.sampled_from(["toy", "135m", "8b"]), bits=st.floats(3.0, 9.0))
def test_every_budget_is_kept_and_used(shape: str, bits: float) -> None:
    if shape == "toy":
        bits += 2  # its tables take as much as its weights
    config = SHAPES[shape]
    plan = plan_conversion(config, {}, bits, 0)
    room = bits * plan.parameters / 8
    assert packed_size(plan) <= room
    if bits < 8:
        assert packed_size(plan) > (0.8 if shape == "toy" else 0.98) * room
    for spec in plan.linears.values():
        check_bands(spec.bands, spec.rows)


def test_more_room_never_narrows() -> None:
    tree = decoder(SHAPES["135m"])
    widths = [fixed_widths(tree, int(bits * tree.parameters / 8)) for bits in (3.5, 4.25, 6.0)]
    means = [
        {
            name: sum(b.bits * b.rows for b in bands) / sum(b.rows for b in bands)
            for name, bands in one.items()
        }
        for one in widths
    ]
    for narrow, wide in pairwise(means):
        assert all(wide[name] >= narrow[name] for name in narrow)
    assert means[1]["layers.3.attn.v"] == 8
    assert means[1]["embed"] < 4.25


def test_too_small_a_budget_is_refused() -> None:
    with pytest.raises(BudgetError, match="expected at least"):
        plan_conversion(SHAPES["135m"], {}, 2.0, 0)
