"""Which models make room for another one."""

from __future__ import annotations

from collections.abc import Iterable

from rockledge.serve.residency.place import Place


def to_unload(places: Iterable[Place], missing: int) -> list[Place]:
    """Those of the loaded ones that have `missing` bytes together: idle ones before those with requests at
    work, broken ones before sound ones, then the least recently used. As many as there are if all together
    have less."""
    chosen: list[Place] = []
    for place in sorted(places, key=lambda one: (one.users > 0, not one.broken, one.idle_since)):
        if missing <= 0:
            break
        chosen.append(place)
        missing -= place.bytes
    for place in list(chosen):  # the last ones may make those before them unnecessary
        if missing + place.bytes <= 0:
            chosen.remove(place)
            missing += place.bytes
    return chosen
