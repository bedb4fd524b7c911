"""The whole way from a checkpoint to an artifact: `quantize`, and `estimate` of what it will take."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from rockledge.artifact import ArtifactPlan, packed_size
from rockledge.artifact.parts import size_numbers
from rockledge.artifact.provenance import Provenance, peak_memory
from rockledge.artifact.writer import check_place
from rockledge.errors import BudgetError
from rockledge.eval.divergence import DivergenceReport
from rockledge.eval.embeddings import EmbeddingReport
from rockledge.model.block import decoder
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.model.source import source_hub_id, source_numbers
from rockledge.model.source_digest import source_digest
from rockledge.quantization.calibration.calibrate import boundary, record_inputs
from rockledge.quantization.calibration.sequences import Calibration, calibration_for
from rockledge.quantization.choosing.assemble import Assembly, write_artifact
from rockledge.quantization.choosing.budget import (
    Limits,
    Widths,
    fit_widths,
    least_bits,
    menu,
    plan_artifact,
    planes_of,
    predicted,
    uniform,
)
from rockledge.quantization.choosing.recipe import BUILT_IN, Recipe
from rockledge.quantization.device import check_device
from rockledge.quantization.estimate import Estimate, Speed, estimate_run, work_bytes
from rockledge.quantization.fingerprint import fingerprint
from rockledge.quantization.finished import finished_shares
from rockledge.quantization.reporting.check import price_check
from rockledge.quantization.reporting.held_out import held_out_divergence
from rockledge.quantization.reporting.loss import HEADLESS_NOTE, loss_of
from rockledge.quantization.reporting.on_board import board_numbers
from rockledge.quantization.reporting.picture import widths_picture
from rockledge.quantization.reporting.report import (
    BudgetRow,
    Report,
    check_numbers,
    decode_speed,
    notes_on,
    report_text,
    wide_heads,
    wide_reasons,
)
from rockledge.quantization.request import Request, request
from rockledge.quantization.rounding.candidates import WIDTHS
from rockledge.quantization.rounding.measure import begun, forget, measure
from rockledge.quantization.transforming.rotate import RotatedModel, rotated
from rockledge.quantization.work.abandoned import default_work_prefix
from rockledge.quantization.work.disk import check_room
from rockledge.quantization.work.slices import Slices
from rockledge.quantization.work.store import Prices, WorkDirectory

Progress = Callable[[str, int, int], None]
"""Called with (stage, units done, units in all)."""

# Budgets of the table in the report, bits a weight.
BUDGETS = (3.25, 3.5, 4.0, 4.25, 4.5, 5.0, 8.0)


def estimate(
    model: str | Path | Checkpoint,
    *,
    bits: float | None = None,
    fit: str | None = None,
    milliseconds: float | None = None,
    fast: bool = False,
    recipe: str | Path | None = None,
    device: str = "cpu",
    tokens: int | None = None,
    check_prices: bool = False,
    work: str | Path | None = None,
    speed: Speed | None = None,
) -> Estimate:
    """What `quantize` with the same arguments will take; reads the model's header only, and what `work` holds
    already. `speed`: measured here where it is not given."""
    check_device(device)
    asked, turned, offered, most = _prepared(
        model, "cpu", bits=bits, fit=fit, milliseconds=milliseconds, fast=fast, recipe=recipe, tokens=tokens
    )
    return estimate_run(
        turned.config,
        most,
        tokens=asked.tokens,
        gradient_tokens=asked.gradient_sequences * asked.length,
        widths=offered,
        steps=asked.steps,
        check_prices=check_prices,
        device=device,
        length=asked.length,
        done=None if work is None else finished_shares(Path(work), turned.config),
        speed=speed,
    )


def quantize(
    model: str | Path | Checkpoint,
    out: str | Path,
    *,
    bits: float | None = None,
    fit: str | None = None,
    milliseconds: float | None = None,
    fast: bool = False,
    recipe: str | Path | None = None,
    device: str = "cpu",
    calibration: str | Path | None = None,
    tokens: int | None = None,
    seed: int = 0,
    work: str | Path | None = None,
    force: bool = False,
    check_prices: bool = False,
    overwrite: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compresses a checkpoint into an artifact directory `out`, and reports what that cost.

    `model` is a GGUF file, a Hugging Face directory, a Hub id or an open checkpoint. The size is limited by
    `bits` a weight over all tensors (default 4.25), by what `fit` (a board such as "rk3588-8gb") has room
    for, by the modelled `milliseconds` of a decoded token there, or by all of them. `fast` takes the steps
    that need least time (`steps.FAST`); a `recipe` says which steps to take, and may fix every width.
    `calibration` is a text or JSON-lines file (default: the built-in mix) of which about `tokens` tokens are
    used; less text than that needs `force`. `work` keeps intermediate files, about 3.5 bytes a weight: a run
    that was stopped continues there with the same result, and another budget starts from the prices there. By
    default they lie beside `out` and are removed at the end. With `check_prices` the report says how well the
    prices rank what random bands really cost; if prices corrected by that make a better artifact, it is that
    one. Nothing appears under `out` before it is complete; `overwrite` then replaces an artifact that is
    there. `command` is the command line, for the
    report. Raises RockledgeError's family.
    """
    started = time.monotonic()
    check_place(out, overwrite=overwrite)
    check_device(device)
    asked, turned, offered, most = _prepared(
        model,
        device,
        bits=bits,
        fit=fit,
        milliseconds=milliseconds,
        fast=fast,
        recipe=recipe,
        calibration=calibration,
        tokens=tokens,
        seed=seed,
    )
    checkpoint, say = turned.checkpoint, progress or _silent
    text = calibration_for(
        checkpoint.files(),
        asked.calibration,
        tokens=asked.tokens,
        length=asked.length,
        seed=asked.seed,
        force=force,
    )
    parent = Path(out).absolute().parent
    with (
        _work_directory(work, Path(out)) as directory,
        directory.claimed(fingerprint(checkpoint, text, asked, offered, device)),
    ):
        held = text.sequences.size + text.held_out.size
        check_room(directory.path, work_bytes(checkpoint.config, held, offered), parent, most)
        prices, outputs = _measured(turned, text, asked, offered, directory, say)
        widths, planes = _chosen(prices, turned, asked)
        made = _recipe(checkpoint, asked, text, widths, planes)
        plan = plan_artifact(turned, widths, planes, checkpoint.files(), made.text())
        assembly = Assembly(plan, directory)
        cost = held_out_divergence(
            turned, plan, assembly, text.held_out, outputs, lambda done, total: say("check", done, total)
        )
        numbers = _numbers(checkpoint, asked, text.notes, prices, turned, plan, cost)
        numbers["price_check"] = None
        if check_prices:
            checked = price_check(
                turned,
                prices,
                directory,
                text.held_out,
                asked.seed,
                lambda done, total: say("prices", done, total),
            )
            numbers["price_check"] = check_numbers(checked)
        picture = widths_picture(plan, prices)
        made_by = Provenance(
            command=command,
            seconds=time.monotonic() - started,
            peak_memory_bytes=peak_memory(),
            calibration=f"{made.calibration} (SHA-256 {text.sha256[:12]}...)",
            tokens=asked.tokens,
            seed=asked.seed,
            steps=asdict(asked.steps),
        )
        made_text = report_text(numbers, checkpoint.config, picture=picture is not None, made=made_by.lines())
        report = Report(numbers, made_text, picture)
        write_artifact(
            Path(out),
            plan,
            turned,
            assembly,
            report.numbers,
            report.text,
            report.picture,
            lambda done, total: say("write", done, total),
            overwrite,
        )
    # Times are in report.md only: all other files of the same request are the same bytes.
    return replace(report, numbers={**report.numbers, "seconds": round(time.monotonic() - started, 1)})


def _prepared(
    model: str | Path | Checkpoint, device: str, **arguments: Any
) -> tuple[Request, RotatedModel, tuple[int, ...], int]:
    """The request made of its `arguments`, the model as it is quantised, the widths that are measured, and
    the most bytes that the artifact's tensors may have."""
    checkpoint = open_checkpoint(model) if isinstance(model, (str, Path)) else model
    asked = request(checkpoint.config, **arguments)
    turned = rotated(checkpoint, asked.seed, device, asked.steps)
    fixed = () if asked.recipe is None else asked.recipe.widths.values()
    offered = menu(turned, _limits(asked), {band.bits for bands in fixed for band in bands})
    return asked, turned, offered, min(asked.tensor_bytes, _largest(turned, _limits(asked)))


def _largest(model: RotatedModel, limits: Limits) -> int:
    """Bytes of the model at the widest width, or about as many as the time of a token allows: it is the time
    to read them."""
    wide = uniform(model, limits.board, max(WIDTHS))
    share = 1.0 if limits.milliseconds is None else min(1.0, limits.milliseconds / wide.milliseconds)
    return int(share * wide.bytes)


def _silent(stage: str, done: int, total: int) -> None:
    pass


@contextmanager
def _work_directory(named: str | Path | None, out: Path) -> Iterator[WorkDirectory]:
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    if named is not None:
        yield WorkDirectory(Path(named), kept=True)
        return
    with tempfile.TemporaryDirectory(prefix=default_work_prefix(out), dir=parent) as path:
        yield WorkDirectory(Path(path))


def _measured(
    model: RotatedModel,
    text: Calibration,
    asked: Request,
    offered: tuple[int, ...],
    work: WorkDirectory,
    say: Progress,
) -> tuple[Prices, np.ndarray[Any, np.dtype[np.float32]]]:
    """Prices, and the float model's last block outputs for the held-out sequences."""
    both, layers = np.concatenate([text.sequences, text.held_out]), model.config.layers
    count = len(text.sequences)
    if work.has_prices():
        prices = work.prices()
        forget(work, layers)
    else:
        slices = Slices()
        if not begun(work):
            record_inputs(model, both, work, slices, lambda i, n: say("forward", i, n))
        prices = measure(model, both, count, asked.gradient_sequences, work, asked.seed, slices, say, offered)
    outputs = work.array(boundary(layers), (*both.shape, model.config.hidden))
    return prices, outputs[count:]


def _limits(asked: Request) -> Limits:
    return Limits(asked.board, asked.tensor_bytes, asked.milliseconds)


def _chosen(prices: Prices, model: RotatedModel, asked: Request) -> tuple[Widths, dict[str, int]]:
    if asked.recipe is not None:
        return dict(asked.recipe.widths), dict(asked.recipe.planes)
    widths = fit_widths(prices, model, _limits(asked))
    return widths, _planes(prices, widths, model, asked)


def _planes(prices: Prices, widths: Widths, model: RotatedModel, asked: Request) -> dict[str, int]:
    return planes_of(prices, widths, model.config) if asked.steps.planes == "price" else {}


def _recipe(
    checkpoint: Checkpoint, asked: Request, text: Calibration, widths: Widths, planes: dict[str, int]
) -> Recipe:
    return Recipe(
        model=checkpoint.path.name,
        seed=asked.seed,
        calibration=BUILT_IN if asked.calibration is None else str(asked.calibration),
        calibration_sha256=text.sha256,
        tokens=asked.tokens,
        bits_per_weight=asked.bits_per_weight,
        board=asked.board.name if asked.fitted else None,
        milliseconds=asked.milliseconds,
        widths=widths,
        planes=planes,
        steps=asked.steps,
    )


def _numbers(
    checkpoint: Checkpoint,
    asked: Request,
    notes: Sequence[str],
    prices: Prices,
    model: RotatedModel,
    plan: ArtifactPlan,
    cost: DivergenceReport | EmbeddingReport,
) -> dict[str, Any]:
    widths = {name: spec.bands for name, spec in plan.linears.items()}
    planes = {name: spec.planes for name, spec in plan.linears.items()}
    price = predicted(prices, widths, planes)
    # Second order and independent errors: the prices rank choices well, and one measurement sets their level.
    loss, divergence = loss_of(checkpoint.config), asdict(cost)
    measured = divergence[loss.mean]
    level = measured / price if price > 0 else 1.0
    rows = _with_made(_budgets(prices, model, asked, level), asked, plan, measured)
    divergence.pop("by_position", None)
    said = (HEADLESS_NOTE,) if checkpoint.config.headless else ()
    return {
        "model": source_hub_id(checkpoint.path) or checkpoint.path.name,
        "source": source_numbers(checkpoint.path),
        "stored": checkpoint.stored,
        "notes": [*notes_on(checkpoint.stored), *checkpoint.notes, *said, *notes, *prices.notes],
        **size_numbers(plan),
        "divergence": divergence,
        loss.priced: price,
        loss.measured_over_priced: level,
        "heads_at_8_bits": wide_heads(plan),
        "heads_at_8_bits_why": wide_reasons(plan, prices),
        "two_plane_inputs": sorted(name for name, count in planes.items() if count == 2),
        "source_sha256": source_digest(checkpoint),
        **board_numbers(checkpoint.config, asked.board, packed_size(plan), decode_speed(plan, asked.board)),
        "budgets": [row.body(loss) for row in rows],
    }


def _with_made(rows: list[BudgetRow], asked: Request, plan: ArtifactPlan, measured: float) -> list[BudgetRow]:
    """The table with a row for the artifact as it was made and its `measured` loss, in place of one that asks
    for the same bits."""
    size = packed_size(plan)
    bits = 8 * size / plan.parameters
    wanted = bits if asked.bits_per_weight is None else asked.bits_per_weight
    mine = BudgetRow(wanted, bits, size, measured, decode_speed(plan, asked.board), made=True)
    others = [row for row in rows if row.bits_asked != wanted]
    return sorted([*others, mine], key=lambda row: row.bits_asked)


def _budgets(prices: Prices, model: RotatedModel, asked: Request, level: float) -> list[BudgetRow]:
    """What other budgets would give, from the same prices."""
    rows = []
    count = decoder(model.config).parameters
    for bits in BUDGETS:
        limits = Limits(asked.board, int(bits * count / 8))
        try:
            widths = fit_widths(prices, model, limits)
        except BudgetError:
            rows.append(BudgetRow(bits, None, None, None, None, least_bits(prices, model, asked.board)))
            continue
        planes = _planes(prices, widths, model, asked)
        plan = plan_artifact(model, widths, planes, {}, None)
        size = packed_size(plan)
        cost = level * predicted(prices, widths, planes)
        rows.append(BudgetRow(bits, 8 * size / count, size, cost, decode_speed(plan, asked.board)))
    return rows
