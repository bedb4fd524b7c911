"""Digests of artifacts and logits: whether a change of the code changed a bit.

    python -m bench.digests --write bench/results/digests.json
    python -m bench.digests --check bench/results/digests.json

Small random checkpoints of every family are quantised, and a prompt runs through each artifact on the
portable kernel. Float sums differ between processors and PyTorch versions, so the file is compared only
with one from the same machine: `--check` fails where the environment differs.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import rockledge
from bench.machine import commit, processor
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.model.config import ModelConfig
from rockledge.runtime.engine import Engine
from rockledge.synth import shape_config, synth_artifact, synth_checkpoint

PROMPT = 70  # tokens: three pages, and no multiple of one


class Uneven:
    """A checkpoint whose gains and biases are not all alike, as those of `synth` are."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoint, name)

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """As the checkpoint's; vectors get random values."""
        values = self._checkpoint.tensor(name)
        if values.ndim > 1:
            return values
        random = np.random.default_rng(list(name.encode()))
        return (values + random.normal(0, 0.3, values.shape)).astype(np.float32)


def models() -> dict[str, ModelConfig]:
    """The toy shape in every family that was there before the decoder became data, tied and not."""
    toy = shape_config("toy")
    made = {}
    for family in ("llama", "mistral", "qwen2", "qwen3"):
        for tied in (True, False):
            made[f"{family}-{'tied' if tied else 'untied'}"] = replace(
                toy, family=family, tied=tied, qkv_bias=family == "qwen2", qk_norm=family == "qwen3"
            )
    return made


def digests() -> dict[str, str]:
    """SHA-256 by "model: what"."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in models().items():
            for kind in ("synth", "quantised"):
                path = Path(folder) / f"{name}-{kind}"
                if kind == "synth":
                    synth_artifact(config, path)
                else:
                    source = open_checkpoint(synth_checkpoint(config, Path(folder) / name))
                    rockledge.quantize(Uneven(source), path, bits=4.25, tokens=1024, force=True)
                for file in ("config.json", "model.safetensors"):
                    found[f"{name} {kind}: {file}"] = hashlib.sha256((path / file).read_bytes()).hexdigest()
                with Engine.load(path, threads=2, ctx=128, kernel="portable", npu="off") as engine:
                    tokens = np.random.default_rng(5).integers(3, config.vocab, PROMPT).tolist()
                    logits = engine.logits(tokens)
                found[f"{name} {kind}: logits"] = hashlib.sha256(logits.tobytes()).hexdigest()
                print(f"{name} {kind}", file=sys.stderr)
    return found


def environment() -> dict[str, str]:
    """What the digests of quantised models depend on besides the code."""
    return {"processor": processor(), "torch": torch.__version__, "numpy": np.__version__}


def main() -> int:
    """Writes the digests, or compares; 1 where they differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path)
    parser.add_argument("--check", type=Path)
    options = parser.parse_args()
    found = digests()
    if options.write:
        stored = {"commit": commit(), "environment": environment(), "digests": found}
        options.write.write_text(json.dumps(stored, indent=1) + "\n")
    if not options.check:
        return 0
    stored = json.loads(options.check.read_text())
    if stored["environment"] != environment():
        print(f"{options.check} is of another machine: {stored['environment']}; write one of this first")
        return 1
    changed = [name for name, digest in stored["digests"].items() if found.get(name) != digest]
    print(
        "\n".join(f"changed: {name}" for name in changed) or f"{len(found)} digests as at {stored['commit']}"
    )
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
