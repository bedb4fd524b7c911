"""What the toolkit is asked to build, as folders of numbers: single linears, or whole decoder layers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rockledge.export.plain import PlainModel
from rockledge.formats.packing import unpack
from rockledge.model.block import Attention, Branch, Gated, Norm, layer_name
from rockledge.model.rope import inverse_frequencies

Float32 = npt.NDArray[np.float32]

PLATFORM: Final = "rk3588"
ROWS: Final = 64
"""Tokens that an operator takes at a time; its shape is fixed when it is built."""


@dataclass(frozen=True)
class Linear:
    """One linear as the toolkit gets it: `name` in the model, `role` in the job."""

    name: str
    role: str


@dataclass(frozen=True)
class Job:
    """One operator. `linears` are its matrices, `facts` what else job.json says, `constants` other arrays."""

    name: str
    kind: str
    inputs: int
    outputs: int
    linears: tuple[Linear, ...]
    facts: Mapping[str, Any]
    constants: Mapping[str, Float32]


def linear_job(model: PlainModel, name: str) -> Job:
    """The linear `name` alone."""
    rows, cols = model.shape(name)
    return Job(name, "linear", cols, rows, (Linear(name, "w"),), {}, {})


def block_job(model: PlainModel, number: int, rows: int) -> Job:
    """Decoder layer `number` over the first `rows` positions."""
    tree = model.tree
    layer = tree.layers[number]
    constants: dict[str, Float32] = {}

    def norm(one: Norm | None) -> str | None:
        if one is None:
            return None
        name = layer_name(number, one.role)
        if name in model.artifact.arrays:
            constants[one.role] = model.tensor(name)
        return one.role

    body = layer.attends
    if body.rope is not None:
        angle = np.arange(rows)[:, None] * inverse_frequencies(body.rope, rows)
        constants["cos"] = (np.cos(angle) * body.rope.factor).astype(np.float32)
        constants["sin"] = (np.sin(angle) * body.rope.factor).astype(np.float32)
    if body.growth:
        place = np.floor(np.arange(rows) / body.growth_length)
        constants["growth"] = (1 + body.growth * np.log1p(place)).astype(np.float32)

    def branch(one: Branch) -> dict[str, Any]:
        facts = _attention(one.body, norm) if isinstance(one.body, Attention) else _gated(one.body)
        return {"before": norm(one.before), "after": norm(one.after), "body": facts}

    return Job(
        layer_name(number, "block"),
        "block",
        tree.hidden,
        tree.hidden,
        tuple(Linear(layer_name(number, linear.role), linear.role) for linear in layer.linears),
        {"eps": tree.norm_eps, "branches": [branch(one) for one in layer.branches]},
        constants,
    )


def _attention(body: Attention, norm: Any) -> dict[str, Any]:
    return {
        "kind": "attention",
        "q": body.q.role,
        "k": body.k.role,
        "v": body.v.role,
        "out": body.out.role,
        "q_norm": norm(body.q_norm),
        "k_norm": norm(body.k_norm),
        "heads": body.heads,
        "kv_heads": body.kv_heads,
        "head_dim": body.head_dim,
        "scale": body.scale,
        "softcap": body.softcap,
        "window": body.window,
        "turned": body.rope is not None,
    }


def _gated(body: Gated) -> dict[str, Any]:
    return {
        "kind": "gated",
        "gate": body.gate.role,
        "up": body.up.role,
        "down": body.down.role,
        "activation": body.activation,
    }


def write_job(
    folder: Path,
    model: PlainModel,
    job: Job,
    kind: str,
    *,
    codes: bool,
    samples: Sequence[Float32],
    inputs: Float32 | None,
    largest: Mapping[str, tuple[float, float]],
) -> None:
    """Puts a job into `folder`. `samples` fp32 [rows, inputs] are what the toolkit calibrates with, `inputs`
    [any number, rows, inputs] what it simulates. With `codes` weights are int8 codes and row scales, and
    `largest` has the largest absolute input and output of each linear, by its name."""
    arrays: dict[str, npt.NDArray[Any]] = dict(job.constants)
    for linear in job.linears:
        bias = linear.name + ".bias"
        if bias in model.names():
            arrays[linear.role + ".bias"] = model.tensor(bias)
        if not codes:
            arrays[linear.role] = model.tensor(linear.name)
            continue
        values, scale = codes_of(model, linear.name)
        arrays |= {f"{linear.role}.codes": values, f"{linear.role}.scale": scale}
        for end, size in zip(("in", "out"), largest[linear.name], strict=True):
            arrays[f"{linear.role}.{end}"] = np.array(max(size, 1e-6) / 127, np.float32)
    np.savez(folder / "weights.npz", **arrays)  # type: ignore[arg-type]
    names = []
    for number, sample in enumerate(samples):
        names.append(f"sample{number}.npy")
        np.save(folder / names[-1], np.ascontiguousarray(sample, np.float32))
    if inputs is not None:
        np.save(folder / "inputs.npy", inputs)
    facts = {
        "kind": job.kind,
        "platform": PLATFORM,
        "type": kind,
        "codes": codes,
        "rows": samples[0].shape[0],
        "inputs": job.inputs,
        "outputs": job.outputs,
        "samples": names,
        "simulate": inputs is not None,
        **job.facts,
    }
    (folder / "job.json").write_text(json.dumps(facts))


def codes_of(model: PlainModel, name: str) -> tuple[npt.NDArray[np.int8], Float32]:
    """A matrix as int8 codes [N, K] and row scales fp32 [N]: the artifact's own, or where a transform was
    multiplied in, rounded again by the largest weight of each row."""
    if model.keeps_codes(name):
        packed = model.artifact.linear(name)
        return unpack(packed), np.array(packed.scale, np.float32)
    values = model.tensor(name)
    scale = np.maximum(np.abs(values).max(axis=1), np.float32(1e-12)) / np.float32(127)
    return np.rint(values / scale[:, None]).astype(np.int8), scale.astype(np.float32)
