"""The result of pruning: the numbers of pruning.json, and the same for people as pruning.md."""

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from torch import Tensor

from rockledge.eval.intervals import mean_interval
from rockledge.model.config import ModelConfig
from rockledge.pruning.depth import Depth
from rockledge.pruning.follow import Outcome
from rockledge.pruning.importance import Importance
from rockledge.pruning.shape import body_parameters, parameters, pruned_config, shape_of
from rockledge.pruning.students import Kept
from rockledge.pruning.targets import Tried
from rockledge.units import show_count


def tried_numbers(
    teacher: ModelConfig, tried: Sequence[Tried], outcomes: Sequence[Outcome], chosen: int
) -> list[dict[str, Any]]:
    """Every shape with its sizes and losses, nats a token on the held-out text; by how much a loss is above
    the best one's has a 95 % interval over sequences."""
    best, found = outcomes[chosen].best, []
    for place, (one, outcome) in enumerate(zip(tried, outcomes, strict=True)):
        above = outcome.best - best
        config = pruned_config(teacher, one.shape)
        found.append(
            {
                "name": one.name,
                **vars(one.shape),
                "parameters": parameters(teacher, one.shape),
                "body_share": body_parameters(config) / body_parameters(teacher),
                "loss_cut": float(outcome.cut.mean()),
                "loss": float(outcome.refitted.mean()),
                "above_best": float(above.mean()),
                "above_best_ci95": list(mean_interval(above.numpy())) if len(above) > 1 else None,
                "chosen": place == chosen,
            }
        )
    return found


def layer_numbers(kept: Kept, found: Importance, depth: Depth | None) -> list[dict[str, Any]]:
    """Every layer of the teacher: what it matters, and what share of its energies stays."""
    own = {layer.number: layer for layer in kept.layers}
    rows = []
    for number, one in enumerate(found.layers):
        stays = own.get(number)
        rows.append(
            {
                "layer": number,
                "kept": stays is not None,
                "influence": one.influence,
                "cost_without": None if depth is None else depth.alone[number],
                "channel_energy_kept": _share(one.channels, None if stays is None else stays.channels),
                "head_energy_kept": _share(one.heads, None if stays is None else stays.heads),
                "heads": None if stays is None else stays.heads.tolist(),
            }
        )
    return rows


def _share(values: Tensor, place: Tensor | None) -> float | None:
    if place is None:
        return None
    total = float(values.sum())
    return float(values[place].sum()) / total if total > 0 else 1.0


def hidden_share(kept: Kept, found: Importance) -> float:
    """The share of what is read of the residual stream that stays."""
    return float(found.hidden[kept.hidden].sum() / found.hidden.sum())


def report_text(numbers: Mapping[str, Any], pictures: Sequence[str], made: Sequence[str]) -> str:
    """pruning.md."""
    teacher, student = numbers["teacher"], numbers["student"]
    chosen = next(one for one in numbers["tried"] if one["chosen"])
    before, after = numbers["teacher_loss"], numbers["written_loss"]
    rows = [
        f"| {what} | {teacher[key]} | {student[key]} |"
        for what, key in (
            ("layers", "layers"),
            ("hidden", "hidden"),
            ("feed-forward", "ffn"),
            ("heads", "heads"),
            ("key/value heads", "kv_heads"),
        )
    ]
    lines = [
        f"# {numbers['model']}, pruned",
        "",
        *(f"- {note}" for note in numbers["notes"]),
        *([""] if numbers["notes"] else []),
        "| | teacher | student |",
        "| --- | ---: | ---: |",
        *rows,
        f"| parameters | {show_count(teacher['parameters'])} | {show_count(student['parameters'])} |",
        f"| of them in layers | {show_count(teacher['body'])} | {show_count(student['body'])} |",
        f"| loss, nats a token | {before:.3f} | {after:.3f} |",
        f"| perplexity | {exp(min(before, 700)):.2f} | {exp(min(after, 700)):.2f} |",
        "",
        _about_losses(numbers["scored_tokens"], chosen, refitted=numbers["refitted"]),
        "",
        "## Shapes that were tried",
        "",
        *_tried_table(numbers["tried"]),
        "",
        "## What was kept",
        "",
        f"{100 * numbers['hidden_energy_kept']:.1f} % of what is read of the residual stream. By layer:",
        "",
        "| layer | kept | influence | KL without it | channels' energy | heads' energy | heads |",
        "| ---: | --- | ---: | ---: | ---: | ---: | --- |",
        *(_layer_row(one, teacher["heads"]) for one in numbers["layers"]),
        "",
        *(f"![{name}]({name})" for name in pictures),
        *([""] if pictures else []),
        *made,
    ]
    return "\n".join(lines) + "\n"


def _about_losses(scored: int, chosen: Mapping[str, Any], *, refitted: bool) -> str:
    done = (
        f"Just cut it was {chosen['loss_cut']:.3f}; the rest is the refit of what every branch writes."
        if refitted
        else f"It is as it was cut: the refit would have given {chosen['loss']:.3f}; more text may help."
    )
    return (
        f"The loss is on {scored} held-out tokens of the calibration text, the student's read back from its "
        f"file. {done} The student is a beginning: `rockledge distill` is what makes it useful."
    )


def _tried_table(tried: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| profile | layers | hidden | ffn | heads | parameters | loss as cut | refitted | above the best |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in tried:
        interval = one["above_best_ci95"]
        above = "chosen" if one["chosen"] else f"{one['above_best']:.3f}"
        if interval is not None and not one["chosen"]:
            above += f" ({interval[0]:.3f} to {interval[1]:.3f})"
        lines.append(
            f"| {one['name']} | {one['layers']} | {one['hidden']} | {one['ffn']} "
            f"| {one['heads']}/{one['kv_heads']} | {show_count(one['parameters'])} | {one['loss_cut']:.3f} "
            f"| {one['loss']:.3f} | {above} |"
        )
    return lines


def _layer_row(one: Mapping[str, Any], heads: int) -> str:
    if not one["kept"]:
        shares = "| | | |"
    else:
        named = "all" if len(one["heads"]) == heads else ", ".join(map(str, one["heads"]))
        shares = (
            f"| {100 * one['channel_energy_kept']:.1f} % | {100 * one['head_energy_kept']:.1f} % | {named} |"
        )
    without = "" if one["cost_without"] is None else f"{one['cost_without']:.3f}"
    return (
        f"| {one['layer']} | {'yes' if one['kept'] else 'no'} | {one['influence']:.3f} | {without} {shares}"
    )


def sizes(config: ModelConfig) -> dict[str, int]:
    """A model's sizes as the report has them."""
    shape = shape_of(config)
    return {**vars(shape), "parameters": parameters(config, shape), "body": body_parameters(config)}
