"""The vendor's road beside ours, on layers of SmolLM2: cosine of their outputs, and what they cost.

    ROCKLEDGE_RKNN_PYTHON=~/rknn/bin/python python -m bench.vendor_road [--layers 2] [--type w8a8]

An artifact of SmolLM2 is exported to rknn-toolkit2 as whole layers, of which the first few are built and run
by the toolkit's simulator. Ours is the same artifact with inputs of its linears rounded as the runtime rounds
them, in the same layers; everything else is float in both. The reference is the artifact before inputs are
rounded, so that both have the same codes of weights, but for down, which the export rounds again. Prints a
row for each layer and the divergence of the logits after those layers, and writes an entry for each type to
bench/results/vendor_road.json.
The simulator computes in floats: it says nothing of the chip.

With --board DIR an export is run on this board through librknnrt instead, and its first operator compared
with what the simulator gave.
"""

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench import models
from bench.models import UnavailableError
from rockledge.artifact import open_artifact
from rockledge.conversion.convert import convert
from rockledge.errors import RockledgeError
from rockledge.eval.windows import log_softmax
from rockledge.export.measure import sample
from rockledge.export.plain import PlainModel
from rockledge.export.request import ExportRequest
from rockledge.export.rknn_chain import Watch
from rockledge.export.rknn_jobs import ROWS
from rockledge.export.rknn_target import Builder, cosine
from rockledge.export.rknn_toolkit import find_toolkit
from rockledge.export.vendor_device import VendorDevice
from rockledge.formats.packing import dequantize
from rockledge.model.block import layer_name
from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.float_model.forward import (
    block_forward,
    block_weights,
    head_forward,
    head_weights,
    scaled,
)
from rockledge.quantization.reporting.fakequant import rounding_taps

RESULTS = Path(__file__).parent / "results" / "vendor_road.json"
TEXTS = 2


def main() -> int:
    """Prints the comparison; 1 where something it needs is not there."""
    parser = argparse.ArgumentParser(description="the vendor's road beside ours")
    parser.add_argument("--layers", type=int, default=2, help="layers from the first on")
    parser.add_argument("--type", default="w8a8", choices=("w8a8", "w16a16i_dfp"))
    parser.add_argument("--board", metavar="DIR", help="run this export on the board instead")
    args = parser.parse_args()
    try:
        if args.board is not None:
            on_board(Path(args.board))
        else:
            compared(args.layers, args.type)
    except (RockledgeError, UnavailableError) as error:
        print(f"bench.vendor_road: {error}", file=sys.stderr)
        return 1
    return 0


@torch.no_grad()
def compared(layers: int, kind: str) -> None:
    """Builds and simulates the first `layers` layers, and prints both roads."""
    python = find_toolkit(None)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        artifact = open_artifact(convert(open_checkpoint(models.smollm2()), folder / "artifact", bits=8.5))
        plain = PlainModel(artifact, untied=True)
        request = ExportRequest(kind, TEXTS * ROWS, python, blocks=True)
        builder = Builder(python, folder, folder, folder, plain, request, stack)
        tokens, rows = sample(plain, TEXTS * ROWS, ROWS)
        windows = torch.tensor(tokens).reshape(-1, rows)
        tree = plain.tree
        floats = scaled(torch.from_numpy(plain.tensor("embed"))[windows], tree)
        vendor = ours = floats
        found: list[dict[str, Any]] = []
        for number in range(len(tree.layers)):
            weights = block_weights(plain, number)
            watch = Watch()
            after = block_forward(weights, floats, tree, number, watch.tap, watch.output)
            if number >= layers:
                vendor, ours = (block_forward(weights, x, tree, number) for x in (vendor, ours))
                floats = after
                continue
            name = layer_name(number, "block")
            wanted = block_forward(weights, vendor, tree, number).numpy()
            simulated = builder.build(
                name, floats.numpy(), vendor.numpy(), wanted, watch.largest(plain, number)
            )
            # Ours has the artifact's own down, behind its Hadamard.
            own = {
                **weights,
                "ffn.down": torch.from_numpy(dequantize(artifact.linear(layer_name(number, "ffn.down")))),
            }
            tap = rounding_taps(tree, number, artifact.planes, artifact.online)
            expected = block_forward(weights, ours, tree, number).numpy()
            rounded = block_forward(own, ours, tree, number, tap)
            found.append(
                {
                    "layer": number,
                    "cosine_vendor": cosine(simulated, wanted),
                    "cosine_ours": cosine(rounded.numpy(), expected),
                    "scales": builder.operators[-1]["scales"],
                }
            )
            vendor, ours, floats = torch.from_numpy(simulated), rounded, after
        weights = head_weights(plain)
        reference, *others = (head_forward(weights, x, tree).numpy() for x in (floats, vendor, ours))
        costs = [divergence(reference, other) for other in others]
        for note in builder.notes:
            print(f"note: {note}")
    print(f"{'layer':>5}  {'cosine, vendor':>15}  {'cosine, ours':>13}  scales of weights")
    for row in found:
        print(f"{row['layer']:5}  {row['cosine_vendor']:15.6f}  {row['cosine_ours']:13.6f}  {row['scales']}")
    print(f"KL of the logits, nats a token: vendor ({kind}, simulated) {costs[0]:.5f}, ours {costs[1]:.5f}")
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results[kind] = {
        "model": "SmolLM2-135M-Instruct", "tokens": len(tokens), "layers": found,
        "kl_vendor_nats": costs[0], "kl_ours_nats": costs[1],
    }  # fmt: skip
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def divergence(reference: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Mean KL, nats a token, of logits [texts, tokens, vocab]."""
    total, count = 0.0, 0
    for one, two in zip(reference, other, strict=True):
        p, q = log_softmax(one), log_softmax(two)
        total += float((np.exp(p) * (p - q)).sum())
        count += len(p)
    return total / count


def on_board(folder: Path) -> None:
    """Runs the first operator of an export on this board and prints how near it is to the simulator."""
    library = os.environ.get("ROCKLEDGE_LIBRKNNRT", "librknnrt.so")
    with VendorDevice(folder, library) as device:
        check = np.load(folder / "check.npz")
        name = device.names[0]
        found = device.run(name, check["x"])
        api, driver = device.versions(name)
    print(f"{name} with librknnrt {api}, driver {driver}")
    for against in ("simulated", "expected"):
        print(f"cosine to what was {against}: {cosine(found, check[against]):.6f}")


if __name__ == "__main__":
    sys.exit(main())
