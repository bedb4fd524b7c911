"""The rotary embedding in a `config.json`: where its description stands, and what becomes of it."""

from collections.abc import Mapping
from typing import Any

from rockledge.errors import CheckpointError
from rockledge.model.hf_values import HfValues
from rockledge.model.limits import check_size
from rockledge.model.rope_scaling import scaled_fields


def rope_fields(values: HfValues, rope: HfValues | None = None, *, partial: bool = False) -> dict[str, Any]:
    """The rotary fields of a model, from `rope` or the entry that `rope_entry` finds.

    `partial`: the architecture can turn a part of each head's channels only (`partial_rotary_factor`).
    """
    if values.get("rope_divisors") is not None:
        return stored_rope(values)
    rope = rope_entry(values) if rope is None else rope
    head_dim = values.head_dim
    check_size("head_dim", head_dim)
    share = 1.0
    if partial:
        values.ignore("partial_rotary_factor")
        share = rope.real("partial_rotary_factor", values.real("partial_rotary_factor", 1.0))
        if not 0 < share <= 1:
            raise rope.wrong("partial_rotary_factor", "more than 0, at most 1")
    turned = int(head_dim * share)
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.real("rope_theta")
    if theta <= 1:
        raise rope.wrong("rope_theta", "more than 1")
    fields = {
        "rope_theta": theta,
        "rotary_channels": 0 if turned == head_dim else turned,
        **scaled_fields(rope, str(kind), turned, theta, values.context),
    }
    values.notes += unused_rope_keys(rope)
    return fields


def stored_rope(values: HfValues) -> dict[str, Any]:
    """The base and the divisors in a `config.json` of ours, where scaling has no name."""
    divisors = values.get("rope_divisors")
    if not isinstance(divisors, list) or not all(
        isinstance(d, (int, float)) and abs(d) < 1e300 for d in divisors
    ):
        raise CheckpointError("rope_divisors in config.json is not a list of numbers")
    return {"rope_theta": values.real("rope_theta"), "rope_divisors": tuple(float(d) for d in divisors)}


def rope_entry(values: HfValues) -> HfValues:
    """One description of the rotary embedding, out of two spellings.

    Old files have `rope_theta` and `rope_scaling`, newer ones `rope_parameters` with both inside.
    transformers' order (`convert_rope_params_to_dict` in modeling_rope_utils.py): a `rope_scaling` that is
    not empty replaces `rope_parameters` whole, its base included; a base inside counts before one outside;
    the length before scaling is the one outside, then the one inside, then `max_position_embeddings`.
    """
    entries: dict[str, Mapping[str, Any]] = {}
    for key in ("rope_scaling", "rope_parameters"):
        entry = values.get(key)
        if entry is not None and not isinstance(entry, Mapping):
            raise CheckpointError(f"{key} in {values.place} is not an object")
        if entry:
            entries[key] = entry
    place = next(iter(entries), "rope_scaling")
    inside = {key: value for key, value in entries.get(place, {}).items() if value is not None}
    theta = values.get("rope_theta")
    if len(entries) == 2 and entries["rope_scaling"] != entries["rope_parameters"]:
        values.notes.append(
            f"{values.place} has both rope_scaling and rope_parameters; rope_scaling counts, as in "
            f"transformers, with the base {inside.get('rope_theta', theta)}."
        )
    outside = values.get("original_max_position_embeddings")
    if outside is not None:
        inside["original_max_position_embeddings"] = outside
    defaults = {"rope_theta": theta, "original_max_position_embeddings": values.context}
    return HfValues(inside, defaults, place)


# Entries that would change the results where the type or the architecture reads them.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "partial_rotary_factor": (1,),
    "attention_factor": (1,),
    "mscale": (1,),
    "mscale_all_dim": (),
    "llama_4_scaling_beta": (),
}


def unused_rope_keys(rope: HfValues) -> list[str]:
    """Notes about entries that were not read; CheckpointError names one that changes the results."""
    rope.ignore("type", "rope_type", "original_max_position_embeddings")
    unknown = []
    for key, value in rope.stored.items():
        if key in rope.read or value is None or value is False or value in ("", 0, [], {}):
            continue
        if isinstance(value, Mapping):
            raise CheckpointError(
                f"{rope.place} has an entry {key[:60]!r} of its own, such as for one type of layer; "
                "one rotary embedding for all layers is supported"
            )
        allowed = _NEUTRAL.get(key)
        if allowed is None:
            unknown.append(key)
        elif not any(isinstance(value, bool) == isinstance(v, bool) and value == v for v in allowed):
            expected = f"expected {' or '.join(map(str, allowed))}" if allowed else "expected no such key"
            raise CheckpointError(
                f"{rope.place} has {key}: {str(value)[:60]}, which changes the results and is not supported; "
                f"{expected}"
            )
    if not unknown:
        return []
    shown = ", ".join(sorted(key[:40] for key in unknown)[:8])
    more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
    return [f"{rope.place} has keys that its type does not use: {shown}{more}."]
