"""The directory that ships: written whole or not at all, checked when opened, mapped and never copied.

`model.safetensors` holds the packed tensors, each flat and padded to 64 bytes; its metadata hold what a
tensor file cannot express (bands, planes, rotation, checksums). docs/formats.md describes every byte.
"""

from rockledge.artifact.layout import VERSION, ArtifactPlan, LinearSpec, packed_size
from rockledge.artifact.reader import Artifact, open_artifact
from rockledge.artifact.writer import ArtifactWriter

__all__ = [
    "VERSION",
    "Artifact",
    "ArtifactPlan",
    "ArtifactWriter",
    "LinearSpec",
    "open_artifact",
    "packed_size",
]
