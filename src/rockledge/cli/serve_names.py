"""What the models of a server are called: by their own names, and by those of `--alias`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rockledge.errors import UsageError


@dataclass(frozen=True)
class Names:
    """`name`: what a model is called; `aliases`: what else requests may call it by."""

    name: str
    aliases: tuple[str, ...]


def names_of(typed: Sequence[str], own: Sequence[str], aliases: Sequence[str]) -> list[Names]:
    """The names of all models: `typed` is each as on the command line, `own` what it is called by itself.

    An alias is `NAME`, or `NAME=MODEL` with the model as typed or by its own name; of several models it must
    be the latter. Models that are called the same go by their first aliases.

    Raises:
        UsageError: an alias is of no model, or two models are called the same.
    """
    given: list[list[str]] = [[] for _ in typed]
    for alias in aliases:
        name, model = _split(alias, typed, own)
        places = [n for n, word in enumerate(typed) if word == model]
        places = places or [n for n, word in enumerate(own) if word == model]
        if not name or not places:
            raise UsageError(
                f"--alias {alias} names no model that is served; write NAME=MODEL, with MODEL as it is given "
                f"to serve, such as other={typed[0]}"
            )
        if len(places) > 1:
            raise UsageError(f"--alias {alias} could be of several models; name one by its path")
        given[places[0]].append(name)
    shared = {name for name, count in Counter(own).items() if count > 1}
    found = []
    for name, others in zip(own, given, strict=True):
        if name in shared and others:
            name, *others = others
        found.append(Names(name, tuple(dict.fromkeys(other for other in others if other != name))))
    _require_unique(typed, found)
    return found


def _split(alias: str, typed: Sequence[str], own: Sequence[str]) -> tuple[str, str]:
    name, equals, model = alias.partition("=")
    if len(typed) > 1 or (equals and model in (*typed, *own)):
        return name, model
    return alias, typed[0]


def _require_unique(typed: Sequence[str], found: Sequence[Names]) -> None:
    owners: dict[str, str] = {}
    for word, names in zip(typed, found, strict=True):
        for name in (names.name, *names.aliases):
            if name in owners:
                raise UsageError(
                    f"{owners[name]} and {word} would both be called '{name}'; give one of them another name "
                    f"with --alias NAME={word}"
                )
            owners[name] = word
