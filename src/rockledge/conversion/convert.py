"""`convert`: a checkpoint becomes an artifact from its weights alone, tensor by tensor on all processors."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rockledge.artifact import ArtifactPlan, ArtifactWriter, LinearSpec, packed_size
from rockledge.artifact.provenance import Provenance, peak_memory
from rockledge.conversion.folds import Turns
from rockledge.conversion.native_rows import round_rows
from rockledge.conversion.nearest import Float32, UInt8, normal_tables, round_integers
from rockledge.conversion.report import NOT_CALIBRATED, STEPS, report_numbers, report_text
from rockledge.conversion.rotated import RotatedWeights, processors
from rockledge.conversion.widths import Widths, fixed_widths, stream_room
from rockledge.errors import UsageError
from rockledge.formats.bands import STRIP, Band, stream_bytes, table_widths
from rockledge.formats.hadamard import random_rotation
from rockledge.formats.packing import PackedLinear, pack_codes, pack_index
from rockledge.model.block import Linear, decoder, layer_name
from rockledge.model.checkpoint import StoredCheckpoint
from rockledge.model.config import ModelConfig

DEFAULT_BITS = 4.25
_LEAST = 3  # bits of any weight, unless a budget is named
Rows = Callable[[int, int], Float32]


def convert(
    checkpoint: StoredCheckpoint,
    out: str | Path,
    *,
    bits: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    overwrite: bool = False,
    command: str | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Path:
    """Writes the artifact `out` of at most `bits` a weight over all tensors, and returns its path. By default
    they are `DEFAULT_BITS`, or for a tiny model what three bits everywhere come to with tables.

    Rotation with the random signs of `seed`, and nearest rounding: no calibration. `progress` is told (stage,
    matrices done, matrices in all). Nothing appears under `out` before it is complete; an artifact that is
    there is replaced only with `overwrite`. `command` is the command line, for the report. CheckpointError,
    ArtifactError, BudgetError; UsageError where `bits` makes no sense.
    """
    if bits is not None and not 0 < bits <= 32:
        raise UsageError(f"the budget is {bits} bits a weight, expected 2.3 to 8.5")
    started = time.monotonic()
    plan = plan_conversion(checkpoint.config, checkpoint.files(), bits, seed)
    with (
        ThreadPoolExecutor(threads or processors()) as pool,
        ArtifactWriter(out, plan, overwrite=overwrite) as writer,
    ):
        assert plan.rotation is not None
        weights = RotatedWeights(checkpoint, plan.rotation, pool)
        tree, done = weights.tree, 0

        def write(name: str, rows: Rows, bias: Float32 | None = None) -> None:
            nonlocal done
            writer.linear(name, _packed(weights, plan.linears[name], rows, bias))
            done += 1
            progress("convert", done, len(plan.linears))

        def end(linear: Linear) -> None:
            write(linear.role, lambda first, count: weights.end_rows(linear, first, count))

        end(tree.embed)
        for number, layer in enumerate(tree.layers):
            for linear in layer.linears:
                matrix, bias = weights.layer_linear(number, linear)
                write(layer_name(number, linear.role), _rows_of(matrix), bias)
        if not tree.tied:
            end(tree.head)
        for name in plan.arrays:
            writer.array(name, weights.gain(name))
        numbers = report_numbers(checkpoint, plan)
        made = Provenance(
            command=command,
            seconds=time.monotonic() - started,
            peak_memory_bytes=peak_memory(),
            calibration=NOT_CALIBRATED,
            tokens=None,
            seed=seed,
            steps=STEPS,
        )
        writer.report(numbers, report_text(numbers, made))
    return Path(out)


def plan_conversion(
    config: ModelConfig, files: dict[str, bytes], bits: float | None, seed: int
) -> ArtifactPlan:
    """The artifact that `convert` writes for a model with these small `files`."""
    tree = decoder(config)

    def plan(widths: Widths) -> ArtifactPlan:
        return ArtifactPlan(
            config=config,
            linears={
                name: LinearSpec(one.rows, one.cols, widths[name], bias=one.bias)
                for name, one in tree.linears()
            },
            parameters=tree.parameters,
            arrays={name: (norm.size,) for name, norm in tree.kept_norms()},
            rotation=random_rotation(config.hidden, seed),
            online=Turns(tree, stream=True, down=True).online,
            files=files,
        )

    # What is neither code nor index is the same for all widths, but for the tables of those that a linear
    # mixes.
    mixed = {
        name: tuple(
            Band(row, 1 if row < 3 else one.rows - row, width) for row, width in enumerate((2, 3, 4, 8))
        )
        for name, one in tree.linears()
    }
    most = plan(mixed)
    streams = sum(sum(stream_bytes(spec.bands, spec.cols)) for spec in most.linears.values())
    fixed = packed_size(most) - streams
    room = int((bits or DEFAULT_BITS) * tree.parameters / 8) - fixed
    return plan(fixed_widths(tree, room if bits is not None else max(room, stream_room(tree, _LEAST))))


def _rows_of(matrix: Float32) -> Rows:
    return lambda first, count: matrix[first : first + count]


def _packed(weights: RotatedWeights, spec: LinearSpec, rows: Rows, bias: Float32 | None) -> PackedLinear:
    """A linear rounded and packed, a run of rows at a time."""
    codes_bytes, index_bytes = stream_bytes(spec.bands, spec.cols)
    tables = [normal_tables(bits).entries for bits in table_widths(spec.bands)]
    packed = PackedLinear(
        rows=spec.rows,
        cols=spec.cols,
        bands=spec.bands,
        codes=np.zeros(codes_bytes, np.uint8),
        index=np.zeros(index_bytes, np.uint8),
        tables=np.stack(tables) if tables else np.zeros((0, 16, 16), np.int8),
        scale=np.empty(spec.rows, np.float32),
        bias=bias,
    )
    for band, span in zip(packed.bands, packed.spans(), strict=True):
        codes = packed.codes[span.codes : span.codes + span.codes_bytes]
        index = packed.index[span.index : span.index + span.index_bytes]

        def work(part: slice, band: Band = band, codes: UInt8 = codes, index: UInt8 = index) -> None:
            first, count = band.start + part.start, part.stop - part.start
            values = rows(first, count)
            if band.bits == 8:
                w8, packed.scale[first : first + count] = round_integers(values)
                _put(codes, part, band.rows, pack_codes(w8.view(np.uint8), 8))
                return
            found, chosen, packed.scale[first : first + count] = round_rows(values, band.bits)
            _put(codes, part, band.rows, pack_codes(found, band.bits))
            _put(index, part, band.rows, pack_index(chosen, spec.cols))

        weights.each_part(band.rows, spec.cols, work, STRIP)
    return packed


def _put(stream: UInt8, part: slice, rows: int, strips: UInt8) -> None:
    """Puts the bytes of whole strips, from row `part.start` on, into the stream of a band of `rows` rows."""
    start = len(stream) * (part.start // STRIP) // -(-rows // STRIP)
    stream[start : start + len(strips)] = strips
