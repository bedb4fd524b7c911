"""The order of feed-forward channels is found again, and another model's weights are not taken for the
reference."""

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from rockledge.doctor.basis import channel_order
from rockledge.doctor.likeness import likeness


@example(seed=128, noise=0.25, scaled=False)
@given(seed=st.integers(0, 2**31), noise=st.floats(0, 0.25), scaled=st.booleans())
def test_doctor_finds_the_order_of_channels(seed: int, noise: float, scaled: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    gate, up = torch.randn(2, 48, 40, generator=generator)
    order = torch.randperm(48, generator=generator)
    factors = torch.rand(48, 1, generator=generator) * 5 + 0.1 if scaled else torch.ones(48, 1)
    pairs = [
        (factors * (one[order] + noise * torch.randn(one.shape, generator=generator)), one)
        for one in (gate, up)
    ]
    assert torch.equal(channel_order(pairs), order)
    # A matrix that is not like its original does not keep the other from being matched.
    assert torch.equal(channel_order([(torch.randn(48, 40, generator=generator), gate), pairs[1]]), order)


def test_doctor_compares_rows_by_direction_and_length() -> None:
    rows = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    stored = torch.tensor([[6.0, 8.0], [0.0, 2.0], [0.0, 0.0], [float("nan"), 1.0]])
    found = likeness(stored, rows)
    assert found.gain[:3].tolist() == [2.0, 0.0, 1.0]
    assert found.correlation.tolist() == [1.0, 0.0, 1.0, 0.0]
