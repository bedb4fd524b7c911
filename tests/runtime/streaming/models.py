"""A model of some megabytes in many pieces, and budgets for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rockledge.runtime.loading import prepare
from rockledge.runtime.streaming.fit import least_ring
from rockledge.synth import SHAPES, synth_artifact

SHAPE = replace(
    SHAPES["toy"],
    hidden=512,
    layers=8,
    heads=8,
    kv_heads=4,
    head_dim=64,
    ffn=2048,
    vocab=2000,
    rope_divisors=(1.0,) * 32,
    tied=False,
)


def made(path: Path) -> Path:
    """The model, 16 MB."""
    return synth_artifact(SHAPE, path, bits=4, seed=5)


def budget_for(path: Path, weights: float, context: int = 200, **options: Any) -> int:
    """A budget for the smallest steps within which about that share of the pieces stays in memory; 0: as
    little as possible, 1: all but the embedding."""
    prepared = prepare(path, options.get("threads", 1), 4, ctx=context, budget=1)
    assert prepared.streamed is not None
    sizes, least = prepared.streamed.sizes, prepared.demand.total(32, context)
    return least + int(weights * sum(sizes)) - (least_ring(sizes) if weights == 1 else 0)
