"""A student as a directory that transformers loads: it appears whole, or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rockledge.artifact.publish import publish_directory, write_file, writing
from rockledge.errors import RockledgeError, UsageError
from rockledge.model.block import decoder, layer_name
from rockledge.model.config import ModelConfig
from rockledge.model.family import stored_tensors
from rockledge.model.huggingface import HuggingFaceCheckpoint
from rockledge.pruning.finished import drop_stages_of
from rockledge.pruning.importance import Importance
from rockledge.pruning.shape import Shape, pruned_config, spread
from rockledge.pruning.student_config import student_config
from rockledge.pruning.student_file import StudentFile, file_bytes
from rockledge.pruning.students import Kept, student_head
from rockledge.pruning.teacher import carried_files
from rockledge.quantization.float_model.forward import head_weights
from rockledge.units import show_size

TEXT, NUMBERS = "pruning.md", "pruning.json"
"""The report's files."""


def check_empty(out: Path) -> None:
    """Raises UsageError where something is at `out` that is not an empty directory."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is there and not empty; choose another place, or remove it yourself")


def check_free(out: Path) -> None:
    """`check_empty`; what the run that made `out` could not remove any more goes."""
    if (out / NUMBERS).is_file():
        drop_stages_of(Path(os.path.realpath(out)))
    check_empty(out)


def check_room_for(out: Path, teacher: HuggingFaceCheckpoint, shapes: Sequence[Shape]) -> None:
    """Raises RockledgeError unless there is room at `out` for a student of any of these shapes."""
    sizes = []
    for shape in shapes:
        layers = spread(teacher.config.layers, shape.layers)
        config = pruned_config(teacher.config, shape, layers)
        sizes.append(file_bytes(config, _types(teacher, config, layers)))
    place = out
    while not place.exists():
        place = place.parent
    _check_room(place, out, max(sizes))


@dataclass(frozen=True)
class Writer:
    """A student that is being written: `layer` takes its layers; `path` is where it is meanwhile."""

    path: Path
    layer: Callable[[int, Mapping[str, Tensor]], None]
    finish: Callable[[], HuggingFaceCheckpoint]
    file: Callable[[str, bytes], None]


@contextmanager
def writing_student(
    out: Path, teacher: HuggingFaceCheckpoint, kept: Kept, found: Importance
) -> Iterator[Writer]:
    """Everything but layers and report is written by `finish`, which opens what is there as a checkpoint; at
    the end of the block it appears at `out`. RockledgeError where there is no room for it."""
    tree = decoder(kept.config)
    raw = json.loads((teacher.path / "config.json").read_bytes())
    config, read, scales = student_config(raw, kept.config, kept.numbers, teacher.config.layers)
    types = _types(teacher, kept.config, kept.numbers)
    with publish_directory(out, check_empty) as partial:
        _check_room(partial, out, file_bytes(read, types))

        def file(name: str, data: bytes) -> None:
            with writing(out):
                (partial / name).parent.mkdir(exist_ok=True)
                write_file(partial / name, data)

        with StudentFile(partial / "model.safetensors", read, types, out) as weights:

            def put(name: str, values: Tensor) -> None:
                factor = scales.factor(name, tree)
                weights.write_piece(name, values if factor == 1 else values * factor)

            def layer(number: int, tensors: Mapping[str, Tensor]) -> None:
                for role, values in tensors.items():
                    put(layer_name(number, role), values)

            def finish() -> HuggingFaceCheckpoint:
                head = student_head(head_weights(teacher), kept, found, teacher.config.norm_eps)
                put(tree.final_norm.role, head["final_norm"])
                embedding = torch.from_numpy(teacher.tensor(tree.embed.role))
                put(tree.embed.role, embedding[:, kept.hidden])
                if not tree.tied:
                    put(tree.head.role, head["head"])
                for name, data in carried_files(teacher.path).items():
                    file(name, data)
                file("config.json", (json.dumps(config, indent=2) + "\n").encode())
                return HuggingFaceCheckpoint.open(partial)

            yield Writer(partial, layer, finish, file)


def _types(teacher: HuggingFaceCheckpoint, config: ModelConfig, numbers: Sequence[int]) -> dict[str, str]:
    """By the name of each tensor in the file of a student with `config`, which is made of these layers, the
    type that it has in the teacher's."""
    found = {}
    for tensor in stored_tensors(config):
        parts = tensor.name.split(".")
        if parts[0] == "layers":
            parts[1] = str(numbers[int(parts[1])])
        source = teacher.sources[".".join(parts)]
        found[tensor.hf] = source.file.dtype(source.name)
    return found


def _check_room(place: Path, out: Path, size: int) -> None:
    free = shutil.disk_usage(place).free
    if size > free:
        raise RockledgeError(
            f"the pruned model takes {show_size(size, enough=True)} of disk at {out}, but {show_size(free)} "
            "are free; free some space there, or name another disk with -o"
        )
