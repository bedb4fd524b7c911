"""A linear that learns: what it computes with is what is stored, rounded to the nearest, and its gradients
are those of straight-through rounding with a learnt step. Or its codes stay."""

import numpy as np
import pytest
import torch

from rockledge.formats.bands import Band, groups
from rockledge.formats.packing import PackedLinear, dequantize, pack, unpack
from rockledge.quantization.learning.fixed import FixedLinear
from rockledge.quantization.learning.linear import LearningLinear
from rockledge.quantization.rounding.codebook import start_tables

ROWS, COLS = 27, 40  # the last group and the last strip are not full
BANDS = (Band(0, 9, 3), Band(9, 8, 8), Band(17, 10, 4))
TABLES = {bits: start_tables(bits).round().to(torch.int8).numpy() for bits in (3, 4)}


INDEX = np.random.default_rng(1).integers(0, 16, (ROWS, groups(COLS)), np.uint8)


def stored(bias: bool = False) -> PackedLinear:
    """Any codes at three widths; scales that suit weights of about 1."""
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 8, (ROWS, COLS), np.uint8)
    scale = generator.uniform(0.02, 0.04, ROWS).astype(np.float32)
    biases = generator.normal(size=ROWS).astype(np.float32) if bias else None
    return pack(codes, INDEX, TABLES, scale, BANDS, biases)


@pytest.fixture
def linear() -> LearningLinear:
    torch.manual_seed(0)
    made = LearningLinear(torch.randn(ROWS, COLS), stored())
    with torch.no_grad():
        made.log_scale.normal_(0.0, 0.1)
        made.weight[:, 0] = 9.0  # past the end of every table
    return made


def entries() -> list[torch.Tensor]:
    """What the weights of each row may become, fp32 [COLS, entries]."""
    found = []
    for band in BANDS:
        for row in range(band.start, band.start + band.rows):
            if band.bits == 8:
                found.append(torch.arange(-127.0, 128.0).expand(COLS, -1))
            else:
                tables = np.repeat(TABLES[band.bits][INDEX[row]], 16, axis=0)[:COLS]
                found.append(torch.from_numpy(tables).float())
    return found


def test_what_it_computes_with_is_what_is_stored(linear: LearningLinear) -> None:
    np.testing.assert_array_equal(linear().detach().numpy(), dequantize(linear.packed()))


def test_every_weight_is_the_nearest_entry_of_its_table(linear: LearningLinear) -> None:
    units = (linear.weight / linear.scale()[:, None]).detach()
    found = torch.from_numpy(unpack(linear.packed())).float()
    for row, allowed in enumerate(entries()):
        least = (allowed - units[row][:, None]).abs().amin(dim=1)
        torch.testing.assert_close((found[row] - units[row]).abs(), least, rtol=0, atol=0)


def test_gradients_are_those_of_clamping_and_of_learnt_steps(linear: LearningLinear) -> None:
    allowed = entries()
    low, high = (torch.stack([end(row, dim=1) for row in allowed]) for end in (torch.amin, torch.amax))
    weight, log_scale = (p.detach().clone().requires_grad_() for p in (linear.weight, linear.log_scale))
    scale = torch.tensor(stored().scale) * log_scale.exp()
    clamped = (weight / scale[:, None]).clamp(low, high)
    w8 = torch.from_numpy(unpack(linear.packed())).float()
    outer = torch.randn(ROWS, COLS)
    (((clamped + (w8 - clamped).detach()) * scale[:, None]) * outer).sum().backward()
    (linear() * outer).sum().backward()
    torch.testing.assert_close(linear.weight.grad, weight.grad)
    torch.testing.assert_close(linear.log_scale.grad, log_scale.grad)
    assert float(linear.weight.grad[:9, 0].abs().max()) == 0  # those past the end


def test_a_fused_optimizer_changes_what_is_computed_with(linear: LearningLinear) -> None:
    """It leaves no sign on the weights: a rounding that was kept would be that of an earlier step."""
    before = linear().detach()
    optimizer = torch.optim.AdamW(linear.parameters(), lr=0.1, fused=True)
    linear().square().sum().backward()
    optimizer.step()
    assert not torch.equal(linear(), before)
    np.testing.assert_array_equal(linear().detach().numpy(), dequantize(linear.packed()))


def test_its_bias_is_stored() -> None:
    linear = LearningLinear(torch.randn(ROWS, COLS), stored(bias=True))
    with torch.no_grad():
        linear.bias += 1
    np.testing.assert_array_equal(linear.packed().bias, stored(bias=True).bias + 1)


def test_it_begins_with_the_codes_that_are_stored() -> None:
    """Whatever they are: error feedback takes others than the nearest."""
    packed = stored()
    linear = LearningLinear(torch.randn(ROWS, COLS), packed)
    np.testing.assert_array_equal(unpack(linear.packed()), unpack(packed))
    np.testing.assert_array_equal(linear().detach().numpy(), dequantize(packed))


def test_weights_whose_codes_are_the_nearest_stay_as_they_are() -> None:
    weights = torch.from_numpy(dequantize(stored())) + 0.001
    again = LearningLinear(weights, stored())
    torch.testing.assert_close(again.weight.detach(), weights, rtol=0, atol=0)


def test_a_moved_weight_is_as_far_from_its_entry_as_it_was_from_the_nearest() -> None:
    """So that steps of an optimizer meet borders as often as without error feedback."""
    torch.manual_seed(0)
    weights, packed = torch.randn(ROWS, COLS), stored()
    linear, scale = LearningLinear(weights, packed), torch.tensor(packed.scale)[:, None]
    w8 = torch.from_numpy(unpack(packed)).float()
    within = linear.weight.detach() / scale - w8
    nearest = torch.stack(
        [
            allowed.gather(1, (allowed - units[:, None]).abs().argmin(dim=1, keepdim=True))[:, 0]
            for allowed, units in zip(entries(), weights / scale, strict=True)
        ]
    )
    as_before = (within - (weights / scale - nearest)).abs() < 1e-3
    in_the_middle = within.abs() < 1e-4
    assert bool((as_before | in_the_middle).all())
    assert float(as_before.float().mean()) > 0.3


def test_fixed_codes_stay_and_scales_learn() -> None:
    packed = stored(bias=True)
    linear = FixedLinear(packed, learns=True)
    np.testing.assert_array_equal(linear().detach().numpy(), dequantize(packed))
    outer = torch.randn(ROWS, COLS)
    (linear() * outer).sum().backward()
    expected = (torch.from_numpy(dequantize(packed)) * outer).sum(dim=1)  # d(w e^s)/ds at s = 0
    torch.testing.assert_close(linear.log_scale.grad, expected)
    with torch.no_grad():
        linear.log_scale += 0.1
        linear.bias += 1
    learnt = linear.packed()
    np.testing.assert_array_equal(learnt.codes, packed.codes)
    np.testing.assert_allclose(learnt.scale, packed.scale * np.exp(np.float32(0.1)), rtol=1e-6)
    np.testing.assert_array_equal(learnt.bias, packed.bias + 1)
    np.testing.assert_array_equal(linear().detach().numpy(), dequantize(learnt))
    assert not FixedLinear(packed, learns=False).log_scale.requires_grad
