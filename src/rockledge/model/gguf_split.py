"""A GGUF model split over several files, as llama.cpp's gguf-split writes them: name-00001-of-00003.gguf and
so on.

Every part is a whole GGUF file with its own tensors and `split.no` (from 0), `split.count` and
`split.tensors.count`; only the first has the model's other metadata (llama.cpp's tools/gguf-split/README.md).
"""

import re
from pathlib import Path

from rockledge.errors import CheckpointError
from rockledge.model.gguf_file import GgufFile, open_gguf

_PART = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")
_MOST_PARTS = 99999  # the largest number of five digits


def open_gguf_model(path: Path) -> GgufFile:
    """One GGUF file, or all parts of a split one whose first part is given.

    CheckpointError names parts that are missing or do not belong together, and the first part where another
    one is given.
    """
    first = open_gguf(path)
    count, number = first.metadata.get("split.count", 0), first.metadata.get("split.no", 0)
    if not (_is_part(count) and _is_part(number)):
        raise CheckpointError(
            f"{path.name}: split.no or split.count is not a whole number; the file is damaged, fetch it again"
        )
    if count <= 1:
        return first
    named = _PART.fullmatch(path.name)
    if number != 0:
        if named and (int(named["part"]), int(named["parts"])) == (1, count):
            raise CheckpointError(
                f"{path.name} says that it is part {number + 1} of {count}; the names of the parts were "
                "mixed up, so fetch all parts"
            )
        start = part_name(named["stem"], 1, count) if named else "the file whose split.no is 0"
        raise CheckpointError(
            f"{path.name} is part {number + 1} of {count} of a split GGUF; give {start} or its directory"
        )
    if named is None or int(named["part"]) != 1 or int(named["parts"]) != count:
        raise CheckpointError(
            f"{path.name} is the first of {count} parts of a split GGUF, but its name does not end in "
            f"{part_name('', 1, count)}, so the others cannot be found; give all parts their original names"
        )
    others = [path.parent / part_name(named["stem"], i, count) for i in range(2, count + 1)]
    missing = [other.name for other in others if not other.is_file()]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise CheckpointError(
            f"{path.name} has {count} parts, but {shown} is missing beside it; fetch all parts"
        )
    return _joined(first, [open_gguf(other) for other in others])


def parts_beside(path: Path) -> list[Path]:
    """The file, or all the parts beside it that belong to the same split by their names."""
    paths = [path.parent / Path(name).name for name in part_names(path.name)]
    return paths if len(paths) == 1 else [part for part in paths if part.is_file()]


def part_names(name: str) -> list[str]:
    """The names of all parts of the split that a file belongs to by its name; the name alone where it is not
    a part."""
    named = _PART.fullmatch(name)
    if named is None:
        return [name]
    count = int(named["parts"])
    return [part_name(named["stem"], part, count) for part in range(1, count + 1)]


def first_parts(files: list[Path]) -> list[Path]:
    """Of GGUF files in one directory, those that a model can be opened from: whole files and first parts.

    For a split whose first part is missing, its path is returned all the same, so that the error names it.
    """
    found: dict[Path, None] = {}
    for file in files:
        named = _PART.fullmatch(file.name)
        first = file.parent / part_name(named["stem"], 1, int(named["parts"])) if named else file
        found[first] = None
    return list(found)


def part_name(stem: str, number: int, count: int) -> str:
    """File name of part `number` (from 1) of `count`."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"


def _joined(first: GgufFile, others: list[GgufFile]) -> GgufFile:
    count = first.metadata["split.count"]
    tensors = dict(first.tensors)
    for number, other in enumerate(others, 1):
        stated = (other.metadata.get("split.no"), other.metadata.get("split.count"))
        if stated != (number, count):
            raise CheckpointError(
                f"{other.path.name} says that it is part {stated[0]} of {stated[1]}, expected {number} "
                f"of {count} "
                "(counted from 0); the parts do not belong together"
            )
        for name, tensor in other.tensors.items():
            if name in tensors:
                raise CheckpointError(
                    f"{other.path.name}: the tensor {name[:60]} is in {tensors[name].path.name} too; "
                    "the parts do "
                    "not belong together"
                )
            tensors[name] = tensor
    total = first.metadata.get("split.tensors.count", len(tensors))
    if total != len(tensors):
        raise CheckpointError(
            f"{first.path.name} announces {total} tensors, its {count} parts hold {len(tensors)}; the "
            "parts do not "
            "belong together"
        )
    return GgufFile(first.path, first.metadata, tensors)


def _is_part(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_PARTS
