"""Logits of whole models: against plain NumPy within rounding, and bit for bit however they are computed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.native.one_op import supported_kernels
from tests.runtime.artifacts import VARIANTS, VOCAB, write_artifact
from tests.runtime.reference_numpy import reference_logits

from rockledge.runtime.engine import Engine

ArtifactPath = Callable[[str], Path]


def some_tokens(count: int) -> list[int]:
    return np.random.default_rng(count).integers(0, VOCAB, count).tolist()


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("two-planes", "windows")])
def test_logits_are_those_of_the_reference(artifact_path: ArtifactPath, variant: str) -> None:
    """Equal up to fp32 rounding and to codes of attention's weights that fell the other way (6e-5 of the
    largest), except where that moved one of a prompt's activations to the next int8 step, which is rare in
    short prompts and then costs a hundredth or so."""
    with Engine.load(artifact_path(variant), threads=2, ctx=64) as engine:
        prompts = np.random.default_rng(3).integers(0, VOCAB, (30, 4)).tolist()
        worst = [
            np.abs(engine.logits(prompt) - reference_logits(engine.artifact, prompt)).max()
            for prompt in prompts
        ]
    assert np.median(worst) < 1e-4
    assert max(worst) < 0.2


def test_a_long_text_crosses_chunks_pages_and_attention_splits(artifact_path: ArtifactPath) -> None:
    """With two planes a moved step is 256 times smaller, so that the last of 1000 positions still agree. (One
    other token at position 100 changes the later logits by 0.03 on average.)"""
    tokens = some_tokens(1000)
    with Engine.load(artifact_path("two-planes"), threads=2, ctx=1024) as engine:
        difference = np.abs(engine.logits(tokens) - reference_logits(engine.artifact, tokens))
    assert difference.mean() < 5e-4
    assert difference.max() < 0.02


@pytest.mark.parametrize(
    "variant",
    [
        "rotated-tied",
        "bias",
        "qk-norm",
        "two-planes",
        "norms-around",
        "norms-after",
        "partly-turned",
        "scales",
    ],
)
def test_chunks_threads_and_kernels_change_no_bit(artifact_path: ArtifactPath, variant: str) -> None:
    tokens = some_tokens(150)
    expected = None
    for kernel in supported_kernels():
        for threads in (1, 2, 3):
            with Engine.load(artifact_path(variant), threads=threads, ctx=160, kernel=kernel) as engine:
                assert engine.kernel == kernel
                for chunk in (None, 1, 7, 32, 100) if threads == 2 else (None,):
                    found = engine.logits(tokens, chunk=chunk)
                    expected = found if expected is None else expected
                    assert found.tobytes() == expected.tobytes(), (kernel, threads, chunk)


def test_small_steps_for_small_memory_change_no_bit(artifact_path: ArtifactPath) -> None:
    tokens = some_tokens(300)
    path = artifact_path("rotated-tied")
    with Engine.load(path, threads=1, ctx=320) as roomy:
        expected, most = roomy.logits(tokens), roomy.footprint.bytes
    with Engine.load(path, threads=1, ctx=320, memory=most - 1) as tight:
        assert tight.footprint.step_tokens < roomy.footprint.step_tokens
        assert tight.logits(tokens).tobytes() == expected.tobytes()


def test_a_longer_context_takes_the_rotary_embedding_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Within the model's original length the short divisors count, as if there were no others."""
    tokens, divisors = some_tokens(60), tuple(float(i) for i in range(1, 17))
    long = {"rope_long_divisors": divisors, "rope_original": 64}
    paths = [
        write_artifact(tmp_path / name, replace(VARIANTS["plain"], more=more))
        for name, more in (("both", long), ("short", {}), ("long", {"rope_divisors": divisors}))
    ]
    found = []
    caplog.set_level("INFO", "rockledge")
    for path, context in ((paths[0], 64), (paths[1], 64), (paths[0], 65), (paths[2], 65)):
        with Engine.load(path, threads=1, ctx=context) as engine:
            found.append(engine.logits(tokens).tobytes())
    assert found[0] == found[1] != found[2] == found[3]
    said = [record.getMessage() for record in caplog.records if "for long texts" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("context: 65 tokens are more than the model's original 64")
