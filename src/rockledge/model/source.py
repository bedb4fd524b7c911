"""What is known about a model file or directory besides its weights: its name, its place on the Hub, its
licence."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from rockledge.errors import CheckpointError
from rockledge.model.gguf_file import open_gguf
from rockledge.regular_file import read_regular

_CARD = "README.md"
_FENCE = "---"


@dataclass(frozen=True)
class Licence:
    """`id` as the Hub has it: "apache-2.0", or "other", whose `name` and `link` say more."""

    id: str
    name: str | None = None
    link: str | None = None


def source_name(source: Path) -> str:
    """What the model is called: the file without its ending, the directory, or the repository on the Hub."""
    path = source.resolve() if source.is_dir() else source.absolute()
    if path.is_file():
        return path.stem.lstrip(".") or "model"
    hub_id = source_hub_id(path)
    return (path.name if hub_id is None else hub_id.rpartition("/")[2]).lstrip(".") or "model"


def source_hub_id(source: Path) -> str | None:
    """ "ORG/NAME" for a path in the cache of huggingface_hub (models--ORG--NAME/snapshots/COMMIT/...)."""
    for parent in (source.absolute(), *source.absolute().parents):
        repository = parent.parent.parent.name
        if parent.parent.name == "snapshots" and repository.startswith("models--"):
            return repository.removeprefix("models--").replace("--", "/", 1)
    return None


def source_licence(source: Path) -> Licence | None:
    """From the model card of the directory (README.md, as the Hub has it), or from GGUF metadata."""
    folder = source if source.is_dir() else source.parent
    card = front_matter(folder / _CARD)
    stated = card.get("license")
    if isinstance(stated, str) and (source.is_dir() or source_hub_id(source) is not None):
        return Licence(stated, _text(card.get("license_name")), _text(card.get("license_link")))
    if source.is_file():
        try:
            metadata = open_gguf(source).metadata
        except CheckpointError:
            return None
        keys = ("general.license", "general.license.name", "general.license.link")
        licence, name, link = (_text(metadata.get(key)) for key in keys)
        return None if licence is None else Licence(licence, name, link)
    return None


def source_numbers(source: Path) -> dict[str, object]:
    """For report.json: `hub_id`, `licence` (its id), `licence_name`, `licence_link`; None where unknown."""
    licence = source_licence(source)
    return {
        "hub_id": source_hub_id(source),
        "licence": licence and licence.id,
        "licence_name": licence and licence.name,
        "licence_link": licence and licence.link,
    }


def front_matter(card: Path) -> dict[str, object]:
    """The YAML between the first two lines "---" of a Markdown file; empty where there is none to read."""
    try:
        lines = read_regular(card).decode("utf-8").splitlines()
        if lines[:1] != [_FENCE]:
            return {}
        value = yaml.safe_load("\n".join(lines[1 : lines.index(_FENCE, 1)]))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
