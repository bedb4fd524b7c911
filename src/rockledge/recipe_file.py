"""The recipe file of `prune` and `distill`: one YAML file for the whole way from a teacher to a small model.

    version: 1
    title: Llama-3.1-8B to 4.5B by width, as Minitron
    teacher: meta-llama/Llama-3.1-8B
    student: meta-llama/Llama-3.2-3B      # left out where the student is pruned from the teacher
    prune: {hidden: 3072, ffn: 9216}
    distill: {tokens: 94e9, sequence: 8192}
    hardware: {gpu: H100, gpus: 8, memory_gb: 80}
    sources: {distill.tokens: "where the number was published"}

The keys of a section are the flags of its command, with _ for -; a flag that is given counts more. Each
command knows the keys of its own section and asks for them with `section`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rockledge.errors import UsageError, did_you_mean
from rockledge.regular_file import read_regular

VERSION = 1
SECTIONS = ("prune", "distill", "hardware", "sources")
_KEYS = ("version", "title", "teacher", "student", *SECTIONS)
_LARGEST_FILE = 1 << 20  # bytes; a recipe is a page

Kind = type[int] | type[float] | type[str] | type[bool] | type[dict[str, Any]] | type[list[str]]
_SAID = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a mapping",
    list: "a list of texts",
}


@dataclass(frozen=True)
class RecipeFile:
    """What a file says. `teacher` and `student` are paths or Hub ids, None where it names none."""

    path: Path
    title: str
    teacher: str | None
    student: str | None
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def section(self, name: str, kinds: Mapping[str, Kind]) -> dict[str, Any]:
        """The values of a section by key, each of its kind; an integer may be written as 94e9.

        Raises:
            UsageError: a key is not among `kinds`, or its value is of another kind.
        """
        found: dict[str, Any] = {}
        for key, value in self.sections.get(name, {}).items():
            if key not in kinds:
                raise UsageError(f"{self.path}: {name} has no key {key!r}{did_you_mean(str(key), kinds)}")
            found[key] = _of_kind(value, kinds[key])
            if found[key] is None:
                raise UsageError(
                    f"{self.path}: {name}.{key} is {str(value)[:60]!r}, expected {_SAID[_bare(kinds[key])]}"
                )
        return found

    @property
    def sources(self) -> dict[str, str]:
        """Where numbers were published, by "section.key"."""
        return {str(key): str(value) for key, value in self.sections.get("sources", {}).items()}


def read_recipe_file(path: str | Path) -> RecipeFile:
    """Reads and checks a recipe file; UsageError names the first thing that is wrong with it."""
    path = Path(path)
    try:
        raw = read_regular(path)
        if len(raw) > _LARGEST_FILE:
            raise UsageError(f"{path} is too large for a recipe; give the YAML file of one")
        content = yaml.load(raw.decode("utf-8-sig"), _Plain)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"the recipe {path} cannot be read ({reason}); give another file") from error
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError) as error:
        # PyYAML raises the last two for a tag with a text that does not suit it, such as !!bool maybe.
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the recipe {path} cannot be read as YAML ({reason}); correct it") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a mapping, expected a recipe such as recipes/llama-3-8b-to-4b.yaml")
    for key in content:
        if key not in _KEYS:
            raise UsageError(f"{path}: a recipe has no key {key!r}{did_you_mean(str(key), _KEYS)}")
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        raise UsageError(f"{path} has version {repr(version)[:20]}, expected {VERSION}")
    for key in SECTIONS:
        if not isinstance(content.get(key, {}), dict):
            raise UsageError(f"{path}: {key} is not a mapping of keys to values; correct it")
    for key in ("title", "teacher", "student"):
        if not isinstance(content.get(key, ""), str):
            raise UsageError(f"{path}: {key} is {str(content[key])[:60]!r}, expected text")
    return RecipeFile(
        path,
        content.get("title", ""),
        content.get("teacher"),
        content.get("student"),
        {name: content.get(name, {}) for name in SECTIONS},
    )


def _bare(kind: Any) -> Any:
    return getattr(kind, "__origin__", kind)


def _of_kind(value: Any, kind: Kind) -> Any:
    """The value as that kind; None where it is another. YAML reads 1e-4 as text and 94e9 too, and text that
    looks like a number as one."""
    bare = _bare(kind)
    if bare in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return None
        if not math.isfinite(number):
            return None
        if bare is float:
            return number
        return int(number) if number == int(number) else None
    if bare is list:
        if isinstance(value, str):
            return [value]
        return value if isinstance(value, list) and all(isinstance(v, str) for v in value) else None
    if bare is str and type(value) in (int, float):
        return str(value)
    return value if type(value) is bare else None


class _Plain(yaml.SafeLoader):
    """A key that is written twice is an error: one of its values would be lost. So is an alias: a page of
    them, each of several others, stands for more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The node of the next event; ValueError for an alias."""
        if self.check_event(yaml.AliasEvent):
            raise ValueError("an alias such as *a stands for a value; write that out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node; ValueError for a repeated key."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise ValueError("a key is not text")
            if key in seen:
                raise ValueError(f"the key {key!r} occurs twice")
            seen.add(key)
        return super().construct_mapping(node, deep)
