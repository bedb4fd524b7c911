"""Compress a checkpoint and show the result: python examples/quantize.py MODEL DIR [BITS]"""

import sys

import rockledge
from rockledge.artifact import open_artifact


def main(model: str, directory: str, bits: float) -> None:
    """Makes the artifact, then reads it back."""
    rockledge.quantize(model, directory, bits=bits)
    artifact = open_artifact(directory)
    print(f"{artifact.bits_per_weight:.2f} bits a weight, {artifact.tensor_bytes / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 4.25)
