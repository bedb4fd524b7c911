"""`rockledge inspect`: what a checkpoint or an artifact is, and whether its bytes are whole."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.cli.command import Command
from rockledge.cli.sizes import megabytes
from rockledge.cli.terminal import Terminal, table
from rockledge.units import show_size

if TYPE_CHECKING:
    from rockledge.artifact import Artifact
    from rockledge.model.checkpoint import Checkpoint
    from rockledge.model.config import ModelConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `inspect`."""
    parser.add_argument(
        "path", metavar="PATH", help="artifact directory, Hugging Face directory, GGUF file or Hub id"
    )
    parser.add_argument("--verify", action="store_true", help="read every byte: checksums, or finite numbers")


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Describes an artifact, or else whatever checkpoint is there."""
    from rockledge.cli.any_model import model_path

    path = model_path(args.path)
    if is_artifact(path):
        from rockledge.artifact import open_artifact

        return _inspect_artifact(open_artifact(path), args.verify, terminal)
    from rockledge.model.checkpoint import open_checkpoint

    return _inspect_checkpoint(open_checkpoint(path), args.verify, terminal)


def is_artifact(path: Path) -> bool:
    """Whether a directory holds packed tensors (its header says so)."""
    from rockledge.artifact.layout import META, TENSORS
    from rockledge.tensor_file import read_header

    file = path / TENSORS
    return file.is_file() and META in read_header(file).metadata


@dataclass(frozen=True)
class Part:
    """All linears of one role: weights at each width, and bytes with tables, indices and scales."""

    role: str
    weights: int
    size_bytes: int
    weights_by_bits: dict[int, int]

    @property
    def bits_per_weight(self) -> float:
        """8 x bytes / weights."""
        return 8.0 * self.size_bytes / self.weights


def parts(artifact: Artifact) -> list[Part]:
    """The artifact's linears by role, in the order of the file."""
    from rockledge.formats.bands import packed_bytes

    found: dict[str, Part] = {}
    for name, linear in artifact.linears.items():
        role = name.split(".", 2)[2] if name.startswith("layers.") else name
        old = found.get(role, Part(role, 0, 0, {}))
        widths = Counter(old.weights_by_bits)
        for band in linear.bands:
            widths[band.bits] += band.rows * linear.cols
        size = packed_bytes(linear.rows, linear.cols, linear.bands, bias=linear.bias)
        weights = old.weights + linear.rows * linear.cols
        found[role] = Part(role, weights, old.size_bytes + size, dict(sorted(widths.items())))
    return list(found.values())


def parts_table(found: list[Part]) -> str:
    """Size and widths of every part, for people."""
    widths = sorted({bits for part in found for bits in part.weights_by_bits})
    rows = [
        (
            part.role,
            show_size(part.size_bytes),
            f"{part.bits_per_weight:.2f}",
            *(f"{100 * part.weights_by_bits.get(bits, 0) / part.weights:.0f}%" for bits in widths),
        )
        for part in found
    ]
    return table(("part", "size", "bits", *(f"{bits}-bit" for bits in widths)), rows)


def parts_body(found: list[Part]) -> list[dict[str, Any]]:
    """Size and widths of every part, as `--json` has them."""
    return [
        {
            "part": part.role,
            "weights": part.weights,
            "size_mb": megabytes(part.size_bytes),
            "bits_per_weight": round(part.bits_per_weight, 4),
            "weights_by_bits": {str(bits): count for bits, count in part.weights_by_bits.items()},
        }
        for part in found
    ]


def _inspect_artifact(artifact: Artifact, verify: bool, terminal: Terminal) -> dict[str, Any]:
    if verify:
        done = 0
        with terminal.progress() as advance:

            def count(size: int) -> None:
                nonlocal done
                done += size
                advance("checking (kB)", done // 1000, artifact.tensor_bytes // 1000)

            artifact.verify(count)
    found = parts(artifact)
    terminal.print(f"{artifact.path}: Rockledge artifact, {show_size(artifact.tensor_bytes)}")
    _say_config(artifact.config, artifact.parameters, terminal)
    terminal.print(f"{artifact.bits_per_weight:.3f} bits a weight over everything\n\n{parts_table(found)}")
    notes = (artifact.report or {}).get("notes", [])
    for note in notes:
        terminal.print(f"Note: {note}")
    if verify:
        terminal.print("\nEvery checksum is right.")
    return {
        "kind": "artifact",
        "path": str(artifact.path),
        **_config_body(artifact.config, artifact.parameters),
        "size_mb": megabytes(artifact.tensor_bytes),
        "bits_per_weight": round(artifact.bits_per_weight, 4),
        "parts": parts_body(found),
        "rotated": artifact.rotation is not None,
        "hadamard_blocks": dict(artifact.online),
        "files": list(artifact.file_names),
        "verified": verify,
        "notes": notes,
        "report": artifact.report,
    }


def _inspect_checkpoint(checkpoint: Checkpoint, verify: bool, terminal: Terminal) -> dict[str, Any]:
    names = checkpoint.names()
    if verify:
        with terminal.progress() as advance:
            for done, name in enumerate(names, 1):
                checkpoint.tensor(name)
                advance("reading tensors", done, len(names))
    parameters = sum(prod(checkpoint.shape(name)) for name in names)
    path = checkpoint.path
    files = [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("*.gguf")]
    size = sum(file.stat().st_size for file in files if file.is_file())
    terminal.print(f"{path}: checkpoint, {checkpoint.stored}, {show_size(size)}")
    _say_config(checkpoint.config, parameters, terminal)
    terminal.print(f"{8 * size / parameters:.2f} bits a weight as stored")
    for note in checkpoint.notes:
        terminal.print(f"Note: {note}")
    if verify:
        terminal.print("Every tensor can be read and is finite.")
    return {
        "kind": "checkpoint",
        "path": str(path),
        "stored": checkpoint.stored,
        **_config_body(checkpoint.config, parameters),
        "size_mb": megabytes(size),
        "bits_per_weight": round(8 * size / parameters, 4),
        "tensors": len(names),
        "verified": verify,
        "notes": list(checkpoint.notes),
    }


def _say_config(config: ModelConfig, parameters: int, terminal: Terminal) -> None:
    terminal.print(
        f"{config.family}, {parameters / 1e6:.1f} M parameters: {config.layers} layers of {config.hidden}, "
        f"{config.heads} heads ({config.kv_heads} for keys and values) of {config.head_dim}, "
        f"feed-forward {config.ffn}"
    )
    head = " (no language head)" if config.headless else " (head tied to the embedding)" * config.tied
    terminal.print(f"vocabulary {config.vocab}{head}, context up to {config.context} tokens")


def _config_body(config: ModelConfig, parameters: int) -> dict[str, Any]:
    return {
        "family": config.family,
        "parameters": parameters,
        "layers": config.layers,
        "hidden": config.hidden,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "ffn": config.ffn,
        "vocab": config.vocab,
        "tied": config.tied,
        "headless": config.headless,
        "context_tokens": config.context,
    }


COMMAND = Command("inspect", "say what a checkpoint or artifact is", add_arguments, run)
