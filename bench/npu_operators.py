"""How far operators on the NPU are from float64: softmax, norms, activations, requantised products, blocks.

    python -m bench.npu_operators [--json]

Every operator runs on the emulator, register program by register program, on random inputs of a stated range
(or on every fp16 of it); its bits are compared with its NumPy twin, its values with float64 of the same
inputs. Both roundings of interpolated table values are run, and the larger error counts. "of the bound" is
the largest share of the error bound in the operator's docstring. The figures do not depend on the machine.
The results are written to bench/results/npu_operators.json.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import erfc, sqrt
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge.npu.lut import every_half
from rockledge.npu.programs.activations import exp, gelu, multiply, residual_add, silu
from rockledge.npu.programs.attention import attention, causal_mask
from rockledge.npu.programs.attention_by_bits import attention_by_bits
from rockledge.npu.programs.feed_forward import feed_forward
from rockledge.npu.programs.norms import layernorm, rmsnorm, seen
from rockledge.npu.programs.operator import Operator
from rockledge.npu.programs.requantised_product import requantised_product
from rockledge.npu.programs.softmax import softmax
from rockledge.npu.requantise import Fit, fit_channels, fit_tensor
from rockledge_npu_lab.emulation.options import LutRounding, Options
from rockledge_npu_lab.verify.emulated_operator import run_operator

RESULTS: Final = Path(__file__).parent / "results" / "npu_operators.json"
EPSILON: Final = 1e-5
OPTIONS: Final = tuple(Options(lut_rounding=rounding) for rounding in LutRounding)

Floats = NDArray[np.float64]
Halves = NDArray[np.float16]


@dataclass(frozen=True)
class Case:
    """An operator with inputs, what float64 makes of them, and its bound for each result.

    `after` is what the CPU does to the output before it is compared.
    """

    name: str
    about: str
    operator: Operator
    arrays: Mapping[str, Halves]
    exact: Floats
    bound: Floats
    after: Callable[[Halves], Floats] = lambda found: found.astype(np.float64)


def cases() -> Iterator[Case]:
    """Every operator over its ranges."""
    for name, make, gate, floor in (("SiLU", silu, _sigmoid, 7e-4), ("GELU", gelu, _gauss, 3.5e-4)):
        for reach in (16.0, 4.0, 1.0):
            x = _block(every_half(-reach, reach))
            exact = x.astype(np.float64) * gate(x.astype(np.float64))
            about = f"every fp16 in ±{reach:g}"
            rows, columns = x.shape
            operator = make(rows, columns, -reach, reach)
            yield Case(name, about, operator, {"x": x}, exact, floor + np.abs(exact) / 1024)
    x = _block(every_half(-65504, 0))
    exact = np.exp(x.astype(np.float64))
    yield Case("exp", "every fp16 up to 0", exp(*x.shape), {"x": x}, exact, exact / 256 + 3e-7)
    random = np.random.default_rng(0)
    for columns, scale in ((128, 1.0), (512, 4.0), (4096, 1.0), (4096, 8.0)):
        yield _softmax(_halves(random.standard_normal((12, columns)) * scale), f"normal scores x {scale:g}")
    tail = np.full((12, 4096), -10.0)
    tail[:, 99] = 0
    yield _softmax(_halves(tail), "one score 10 above the others")
    for columns, outlier in ((576, 1), (2048, 1), (4096, 100)):
        yield from _norms(random, columns, outlier)
    pair = {name: _halves(random.standard_normal((32, 2048)) * 4) for name in ("gate", "up")}
    exact = pair["gate"].astype(np.float64) * pair["up"].astype(np.float64)
    bound = np.maximum(np.abs(exact) / 2048, 2.0**-25)
    yield Case("gate x up", "32 x 2048, normal x 4", multiply(32, 2048), pair, exact, bound)
    pair = {name: _halves(random.standard_normal((32, 2048)) * 4) for name in ("x", "delta")}
    exact = pair["x"].astype(np.float64) + pair["delta"].astype(np.float64)
    bound = np.maximum(np.abs(exact) / 2048, 2.0**-25)
    yield Case("residual", "32 x 2048, normal x 4", residual_add(32, 2048), pair, exact, bound)
    for rows, inputs, intermediate in ((12, 576, 1536), (64, 576, 1536), (12, 2048, 8192)):
        yield _feed_forward(random, rows, inputs, intermediate)
    for rows, positions, sharp in ((12, 512, 1.0), (12, 4096, 1.0), (12, 4096, 4.0), (64, 1024, 1.0)):
        yield from _attentions(random, rows, positions, sharp)


def measured(case: Case) -> dict[str, Any]:
    """A row of the table."""
    worst, mean, share, equal = 0.0, 0.0, 0.0, True
    for options in OPTIONS:
        found, flags = run_operator(case.operator, case.arrays, options)
        assert flags == ()
        wrong = np.abs(case.after(found) - case.exact)
        worst, mean = max(worst, float(wrong.max())), max(mean, float(wrong.mean()))
        share = max(share, float((wrong / case.bound).max()))
        if options.lut_rounding is OPTIONS[0].lut_rounding:
            equal = found.tobytes() == case.operator.twin(case.arrays).tobytes()
    return {
        "operator": case.name,
        "inputs": case.about,
        "programs": len(case.operator.program.starts),
        "largest": worst,
        "mean": mean,
        "of_bound": share,
        "equals_twin": equal,
    }


def requantising() -> Iterator[dict[str, Any]]:
    """Requantised products: the error in steps of int8, and what the fit depends on."""
    random = np.random.default_rng(1)
    x = random.integers(-128, 128, (64, 512)).astype(np.int8)
    kernels = random.integers(-128, 128, (128, 512)).astype(np.int8)
    sums = x.astype(np.int64) @ kernels.astype(np.int64).T
    low, high = int(sums.min()), int(sums.max())
    unequal = 2e-4 * np.exp(random.normal(0, 0.5, 128))
    fits: tuple[tuple[str, Fit, Floats], ...] = (
        ("one scale, 2e-4", fit_tensor(2e-4, low, high), np.full(128, 2e-4)),
        ("one scale, 2^-12", fit_tensor(2.0**-12, low, high), np.full(128, 2.0**-12)),
        ("a scale for each of 128 channels", fit_channels(unequal, low, high), unequal),
    )
    for name, fit, real in fits:
        operator = requantised_product(64, kernels, fit)
        found, _ = run_operator(operator, {"x": x})
        wrong = np.abs(found - np.clip(sums * real, -128, 127))
        yield {
            "scales": name,
            "largest": float(wrong.max()),
            "mean": float(wrong.mean()),
            "fit_rms": float(np.sqrt((fit.root_mean_square**2).mean())),
            "depends": dict(fit.depends),
            "equals_twin": found.tobytes() == operator.twin({"x": x}).tobytes(),
        }


def tables(found: Mapping[str, Any]) -> Iterator[str]:
    """The results as tables of Markdown."""
    yield "| operator | inputs | programs | largest error | mean error | of the bound | twin's bits |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in found["operators"]:
        errors = f"{row['largest']:.1e} | {row['mean']:.1e} | {100 * row['of_bound']:.0f} %"
        same = "yes" if row["equals_twin"] else "NO"
        yield f"| {row['operator']} | {row['inputs']} | {row['programs']} | {errors} | {same} |"
    yield ""
    yield "| requantised product | largest error | mean error | ties-up | truncate | bit 30 | twin's bits |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in found["requantised"]:
        switches = ("requantise ties-up", "requantise truncate", "bit 30")
        depends = " | ".join(f"{100 * row['depends'][name]:.2g} %" for name in switches)
        same = "yes" if row["equals_twin"] else "NO"
        yield f"| {row['scales']} | {row['largest']:.3f} | {row['mean']:.3f} | {depends} | {same} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.npu_operators", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args(arguments)
    found = {"operators": [measured(case) for case in cases()], "requantised": list(requantising())}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found) if options.json else "\n".join(tables(found)))
    return 0


def _softmax(x: Halves, about: str) -> Case:
    wide = x.astype(np.float64)
    below = wide - wide.max(axis=1, keepdims=True)
    exact = np.exp(below) / np.exp(below).sum(axis=1, keepdims=True)
    bound = exact * (1 / 128 + np.abs(below) / 2048) + 3e-7
    about = f"{x.shape[0]} x {x.shape[1]}, {about}"
    return Case("softmax", about, softmax(*x.shape), {"x": x}, exact, bound)


def _norms(random: np.random.Generator, columns: int, outlier: float) -> Iterator[Case]:
    x = random.standard_normal((12, columns)) * np.exp(0.5 * random.standard_normal((12, 1)))
    x[:, 7] *= outlier
    gamma, beta = random.standard_normal((2, columns))
    about = f"12 x {columns}, normal" + (f", one column x {outlier:g}" if outlier != 1 else "")
    halves = _halves(x)
    wide = halves.astype(np.float64)
    exact = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + EPSILON) * gamma
    bound = np.abs(exact) / 256 + 1e-6 * np.abs(gamma) + 6e-8
    operator = rmsnorm(12, gamma, EPSILON, seen(halves))
    yield Case("RMSNorm", about, operator, {"x": halves}, exact, bound)
    centred = wide - wide.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    scaled = centred / deviation * gamma
    largest = np.abs(wide).max(axis=1, keepdims=True) / deviation
    bound = np.abs(scaled) / 256 + np.abs(gamma) * (largest / 1024 + 1e-6) + 6e-8
    bound += (np.abs(scaled + beta) + np.abs(beta)) / 1024
    operator = layernorm(12, gamma, beta, EPSILON, seen(halves, centred=True))
    arrays = {"x": halves, "ones": _halves(np.ones((12, 32)))}
    yield Case("LayerNorm", about, operator, arrays, scaled + beta, bound)


def _feed_forward(random: np.random.Generator, rows: int, inputs: int, intermediate: int) -> Case:
    """Normal inputs, weights that keep their size; the bound in the docstring of `feed_forward`."""
    gate, up = (_halves(random.standard_normal((intermediate, inputs)) / sqrt(inputs)) for _ in range(2))
    down = _halves(random.standard_normal((inputs, intermediate)) / sqrt(intermediate))
    x = _halves(random.standard_normal((rows, inputs)))
    norm = float(np.sqrt((x.astype(np.float64) ** 2).sum(axis=1)).max())
    block = feed_forward(rows, gate, up, down, norm)
    wide, gates, ups, downs = (array.astype(np.float64) for array in (x, gate, up, down))
    g, u = wide @ gates.T, wide @ ups.T
    s = g * _sigmoid(g)
    h = s * u
    dg = np.abs(g) / 2048 + np.abs(wide) @ np.abs(gates).T / 2**16 + 2.0**-25
    ds = 1.1 * dg + np.abs(s) / 1024 + 7e-4
    dh = np.abs(u) * ds + (np.abs(s) + ds) * (np.abs(wide) @ np.abs(ups).T) / 2**16
    dh += (np.abs(h) + np.abs(u) * ds) / 1024 + 2.0**-25 / block.hidden_scale
    wrong, sums = dh @ np.abs(downs).T, np.abs(h) @ np.abs(downs).T
    bound = wrong + block.parts * (sums + wrong) / 2048 + sums / 2**16 + block.parts * 2.0**-25 / block.scale
    about = f"{rows} x {inputs}, {intermediate} between, scale {block.scale:g}"
    exact = h @ downs.T * block.scale
    return Case("feed-forward", about, block.operator, {"x": x}, exact, bound * block.scale)


def _attentions(random: np.random.Generator, rows: int, positions: int, sharp: float) -> Iterator[Case]:
    """Both forms at the last positions of a causal head of size 64; the bounds in their docstrings."""
    q = _halves(random.standard_normal((rows, 64)) * sharp / 8)
    keys, values = (_halves(random.standard_normal((positions, 64))) for _ in range(2))
    mask = causal_mask(rows, positions, positions - rows)
    seen = mask == 1
    wide, tall, v = (array.astype(np.float64) for array in (q, keys, values))
    scores = np.where(seen, wide @ tall.T, -np.inf)
    below = scores - scores.max(axis=1, keepdims=True)
    powers = np.exp(below)
    total = powers.sum(axis=1, keepdims=True)
    exact = powers / total @ v
    sizes = np.where(seen, np.abs(scores) / 2048 + np.abs(wide) @ np.abs(tall).T / 2**16, 0)
    change = np.exp(2 * sizes.max(axis=1, keepdims=True))
    relative = change * (1 + 1 / 256 + np.where(seen, np.abs(below), 0) / 1024) - 1
    weights = np.where(seen, powers / total * relative + 3e-7 / total, 0)
    bound = 1.1 * (weights @ np.abs(v) + weights.sum(axis=1, keepdims=True) * np.abs(exact))
    bound += np.abs(exact) / 256 + 2.0**-24
    about = f"{rows} x {positions}, causal, normal scores x {sharp:g}"
    yield Case("attention", about, attention(rows, keys, values), {"q": q, "mask": mask}, exact, bound)
    # The shift that gives an average row a sum of 512.
    shift = float(np.log(np.where(seen, np.exp(scores), 0).sum(axis=1)).mean() - np.log(512))
    block = attention_by_bits(rows, keys, values, shift)
    total = np.where(seen, np.exp(scores - shift), 0).sum(axis=1, keepdims=True)
    away = np.abs(v[None] - exact[:, None])
    bound = 3.5e-5 / total * np.einsum("rj,rjc->rc", seen, away) + np.abs(exact) / 900
    p = powers / powers.sum(axis=1, keepdims=True)
    delta = np.where(seen, np.abs(wide) @ np.abs(tall).T, 0).max(axis=1, keepdims=True) / 2**16
    bound += (0.045 + 2.2 * delta) * np.einsum("rj,rjc->rc", p, away) + 2.0**-24 * block.power / total
    yield Case(
        name="attention by bits",
        about=about,
        operator=block.operator,
        arrays=block.arrays(q, mask),
        exact=exact,
        bound=bound,
        after=lambda found: block.divided(found, mask).astype(np.float64),
    )


def _block(x: Halves) -> Halves:
    """All of `x`, repeated to fill 16 rows."""
    return np.resize(x, (16, -(-len(x) // 16)))


def _halves(x: NDArray[Any]) -> Halves:
    return np.asarray(x, np.float16)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


_ERFC: Final[Callable[[Floats], Floats]] = np.vectorize(erfc, otypes=[np.float64])


def _gauss(x: Floats) -> Floats:
    return np.asarray(_ERFC(-x / sqrt(2)) / 2)


if __name__ == "__main__":
    raise SystemExit(main())
