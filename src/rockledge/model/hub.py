"""Models on the Hugging Face Hub: how they are named, and which files of a repository a model consists of."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rockledge.errors import CheckpointError
from rockledge.model.gguf_split import first_parts, part_names

_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<file>.+))?")
_WEIGHTS = (".safetensors", ".gguf")
# Beside the weights and all JSON files. The last three are an artifact's; README.md names the licence.
_SMALL = ("chat_template.jinja", "README.md", "recipe.yaml", "report.md", "widths.png")
_MODULE = re.compile(r"\d+_\w+/config\.json")
_NOT_MODELS = re.compile(
    r"(^|/)(mmproj|imatrix)[^/]*$", re.IGNORECASE
)  # llama.cpp's names for other GGUF files
_SHOWN = 6


@dataclass(frozen=True)
class HubName:
    """`ORG/NAME`, or `ORG/NAME:FILE` for one GGUF file of a repository: its name, or the quantisation in it
    (`ORG/NAME:Q8_0`, as llama.cpp's -hf takes it)."""

    id: str
    file: str | None = None

    def __str__(self) -> str:
        return self.id if self.file is None else f"{self.id}:{self.file}"


@dataclass(frozen=True)
class Wanted:
    """The files of a model in a repository, and the one to open; None: their directory."""

    files: tuple[str, ...]
    opened: str | None


def hub_name(text: str) -> HubName | None:
    """The name that `text` is, None where it is not one."""
    found = _ID.fullmatch(text)
    return None if found is None else HubName(found["id"], found["file"])


def wanted_files(name: HubName, files: Iterable[str]) -> Wanted:
    """Which of a repository's `files` make the model `name`. CheckpointError says what there is instead."""
    every = sorted(files)
    models = [f for f in every if f.endswith(".gguf") and not _NOT_MODELS.search(f)]
    if name.file is not None:
        return _gguf(name, _named(name, name.file, models))
    top = [file for file in every if "/" not in file]
    if any(file.endswith(".safetensors") for file in top) and "config.json" in top:
        # Mistral's repositories hold the weights a second time as consolidated*.safetensors.
        kept = [
            file
            for file in top
            if file.endswith((".json", ".safetensors")) or file in _SMALL
            if not file.startswith("consolidated")
        ]
        # The modules of sentence-transformers are directories.
        kept += [file for file in every if _MODULE.fullmatch(file)]
        return Wanted(tuple(kept), None)
    firsts = [path.as_posix() for path in first_parts([Path(file) for file in models])]
    if len(firsts) == 1:
        return _gguf(name, firsts[0])
    if firsts:
        raise CheckpointError(
            f"{name} holds {len(firsts)} GGUF models; name one as {name.id}:FILE, of {_listed(firsts)}"
        )
    if any(file.endswith(_WEIGHTS) for file in every):
        raise CheckpointError(
            f"{name} holds weights but not a whole model (config.json and safetensors, or a GGUF file); "
            "name another repository"
        )
    raise CheckpointError(
        f"{name} holds neither safetensors nor GGUF files; name a repository with one of the two"
    )


def _named(name: HubName, asked: str, models: list[str]) -> str:
    """The one of `models` that is called `asked`, or whose name has that quantisation."""
    if asked in models:
        return asked
    quantisation = re.compile(rf"(^|[-_./]){re.escape(asked)}([-_./]|$)", re.IGNORECASE)
    firsts = [path.as_posix() for path in first_parts([Path(file) for file in models])]
    found = [file for file in firsts if quantisation.search(file)]
    if len(found) == 1:
        return found[0]
    if not models:
        raise CheckpointError(f"{name.id} holds no GGUF files; leave out :{asked}")
    if found:
        raise CheckpointError(f"{name} fits {len(found)} GGUF files; name one of {_listed(found)}")
    raise CheckpointError(f"{name.id} holds no GGUF file {asked}; name one of {_listed(firsts)}")


def _gguf(name: HubName, file: str) -> Wanted:
    parts = part_names(file)
    return Wanted((*parts, "README.md"), parts[0])


def _listed(files: list[str]) -> str:
    return ", ".join(files[:_SHOWN]) + (f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else "")


def inside(file: str) -> bool:
    """Whether a file's name stays inside the directory that it is relative to."""
    return not any(part in ("", ".", "..") for part in file.split("/"))


def sizes_of(wanted: Wanted, every: Mapping[str, int]) -> dict[str, int]:
    """Bytes of each wanted file that the repository has. CheckpointError for parts it does not have, and for
    a name such as ../x.gguf, which would be written, and later removed, elsewhere."""
    for file in wanted.files:
        if not inside(file):
            raise CheckpointError(
                f"the repository has a file that is called {file!r}; name another repository"
            )
    missing = [file for file in wanted.files if file not in every and file.endswith(_WEIGHTS)]
    if missing:
        raise CheckpointError(
            f"the repository has {wanted.opened}, but not {_listed(missing)}; name another file"
        )
    return {file: every[file] for file in wanted.files if file in every}
