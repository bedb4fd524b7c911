"""How much memory an engine may take when it is loaded."""

from __future__ import annotations

from collections.abc import Iterable

from rockledge.serve.residency.running import Offer


def allowance(offer: Offer, offers: Iterable[Offer], memory: int | None, taken: int = 0) -> int | None:
    """Bytes that the engine of `offer` may take, of `memory` that those of all `offers` may take together and
    of which `taken` are in use; None for no limit.

    An engine takes more than it has to where it may, for the NPU. If all models fit together, that must leave
    room for those that are not loaded yet, or they would drive each other out.
    """
    if memory is None:
        return None
    spare = memory - sum(other.bytes for other in offers)
    return memory - taken if spare < 0 else min(memory - taken, offer.bytes + spare)
