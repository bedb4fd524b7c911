"""The search for the tiling with the least modelled time, within the limits of the hardware.

A candidate is: how many input parts, how many banks for activations (which says how many rows a tile takes),
how many cores, whether they share columns or rows, and which operand stays in the buffer. Everything is cut
as evenly as its unit allows (4 rows, 32 columns, 32 inputs): the formula is convex in the size of a tile, so
at a given number of tiles even ones are never worse. More row tiles than the banks ask for only read the
weights again, so only the fewest for each number of banks are tried.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from rockledge.board.boards import PROGRAMMED
from rockledge.board.npu_time import (
    ADDITION_BYTES,
    SUM_BYTES,
    NpuRates,
    addition_seconds,
    kick_seconds,
    npu_rates,
    product_seconds,
)
from rockledge.errors import NpuError
from rockledge.npu.layout import INT8
from rockledge.npu.programs.tile_program import (
    BANK_BYTES,
    BANKS,
    LARGEST_ROWS,
    LARGEST_SIZE,
    SPARE_BANKS,
    data_banks,
    least_weight_banks,
)
from rockledge.npu.programs.tiling import (
    TASKS_IN_KICK,
    Addition,
    Cost,
    Kick,
    Product,
    Reuse,
    Span,
    Sums,
    Task,
    Tiling,
)

ROW_UNIT: Final = 4
UNIT: Final = INT8.group
DEFAULT_RATES: Final = npu_rates(PROGRAMMED)
WINDOW_BYTES: Final = int(PROGRAMMED.value("npu_buffers_most"))
# HAP keeps such inputs with more than four rows out of its tuner: submits failed [H], data type not stated.
FAILING_INPUTS: Final = range(3072 + 1, 4096)


@dataclass(frozen=True)
class _Candidate:
    """One way to cut. `parts`: sizes of the input parts; `rows`: the most a row tile takes; `by_rows`: cores
    share rows instead of columns; `row_blocks` x `column_blocks` kicks."""

    parts: tuple[int, ...]
    sums: Sums
    rows: int
    cores: int
    by_rows: bool
    stays: Reuse
    row_blocks: int
    column_blocks: int

    def row_tiles(self, block_rows: int) -> tuple[int, ...]:
        """Sizes of the row tiles of a block, largest first."""
        count = -(-block_rows // self.rows)
        if self.by_rows:
            count = min(-(-count // self.cores) * self.cores, -(-block_rows // ROW_UNIT))
        return cut(block_rows, count, ROW_UNIT)

    def banks(self, block_rows: int) -> tuple[int, int]:
        """Data and weight banks of all programs of a block: those of its largest tile."""
        data = data_banks(max(self.row_tiles(block_rows)), max(self.parts))
        return data, BANKS - data

    def column_tiles(self, core_columns: int, weight_banks: int) -> tuple[int, ...]:
        """Sizes of the column tiles of one core; weights that stay must fit their banks whole."""
        most = LARGEST_SIZE
        if self.stays is Reuse.WEIGHT:
            most = min(most, weight_banks * BANK_BYTES // max(self.parts) // UNIT * UNIT)
        return cut(core_columns, -(-core_columns // most), UNIT)

    def shares(self, block_rows: int, block_columns: int) -> tuple[tuple[tuple[int, ...], int], ...]:
        """For each core its row tiles and its columns; the first core never has less than another."""
        tiles = self.row_tiles(block_rows)
        if not self.by_rows:
            return tuple((tiles, columns) for columns in cut(block_columns, self.cores, UNIT))
        bounds = _starts(cut(len(tiles), self.cores, 1))
        return tuple((tiles[span.start : span.stop], block_columns) for span in bounds)


def plan(
    m: int,
    n: int,
    k: int,
    *,
    rates: NpuRates = DEFAULT_RATES,
    window: int = WINDOW_BYTES,
    parts: int | None = None,
    tile_rows: int | None = None,
    stays: Reuse | None = None,
    sums: Sums | None = None,
) -> Tiling:
    """The tiling of int8 [m, k] x [n, k] with the least modelled seconds. Two activation planes are 2m rows.

    `parts` fixes the number of input parts (weights that stay packed are shared by steps of all sizes),
    `tile_rows` the most rows a tile takes, `stays` the operand that may stay in the buffer (data or weight),
    `sums` who adds several parts. `window`: bytes of operands and results that one kick may address. NpuError
    names the limit that no tiling of this shape keeps.
    """
    for name, size in (("rows", m), ("columns", n), ("inputs", k)):
        if size < 1:
            raise NpuError(f"a matmul has {size} {name}, expected at least 1")
    order = (Reuse.DATA, Reuse.WEIGHT) if stays is None else (stays,)
    return _plan(m, n, k, rates, window, parts, tile_rows or LARGEST_ROWS, order, sums)


@lru_cache(maxsize=4096)
def cut(total: int, count: int, unit: int) -> tuple[int, ...]:
    """`total` in `count` pieces, largest first, as even as multiples of `unit` allow (the rest of a `total`
    that is not a multiple is in the last piece)."""
    units = -(-total // unit)
    small, more = divmod(units, count)
    sizes = (unit * (small + 1),) * more + (unit * small,) * (count - more)
    return (*sizes[:-1], sizes[-1] - (unit * units - total))


@lru_cache(maxsize=512)
def _plan(
    m: int,
    n: int,
    k: int,
    rates: NpuRates,
    window: int,
    parts: int | None,
    tile_rows: int,
    order: tuple[Reuse, ...],
    sums: Sums | None,
) -> Tiling:
    rows = 1 if m == 1 else _padded(m, ROW_UNIT)
    columns, inputs = _padded(n, UNIT), _padded(k, UNIT)
    best: Cost | None = None
    chosen: _Candidate | None = None
    for part_sizes, adder in _partings(inputs, parts, sums):
        for candidate in _candidates(rows, columns, part_sizes, adder, tile_rows, order, rates.cores, window):
            if best is not None and _least_seconds(candidate, rows, columns, rates) >= best.seconds:
                continue
            fitting = _within_a_kick(candidate, rows, columns)
            cost = None if fitting is None else _cost(fitting, rows, columns, rates)
            if cost is not None and (best is None or cost.seconds < best.seconds):
                best, chosen = cost, fitting
    if best is None or chosen is None:
        raise NpuError(_refusal(rows, inputs, parts, window))
    return _tiling((m, n, k), (rows, columns, inputs), chosen, best)


def _least_seconds(candidate: _Candidate, rows: int, columns: int, rates: NpuRates) -> float:
    """A bound below what `_cost` can say, for leaving candidates out: all cores busy, operands read once for
    each tile that stays, all sums written and read back."""
    inputs = sum(candidate.parts)
    operands = inputs * columns * (1 if candidate.stays is Reuse.WEIGHT else -(-rows // candidate.rows))
    additions = len(candidate.parts) - 1 if candidate.sums is Sums.CHAIN else 0
    sums = rows * columns * (SUM_BYTES * len(candidate.parts) + ADDITION_BYTES * additions)
    computing = rows * columns * inputs / (candidate.cores * rates.macs_per_second)
    back = _read_back(rows, columns, candidate.parts, candidate.sums)
    return max(computing, (operands + sums) / rates.bus_bandwidth) + back / rates.bus_bandwidth


def _partings(inputs: int, parts: int | None, sums: Sums | None) -> Iterator[tuple[tuple[int, ...], Sums]]:
    """Every number of input parts that makes the largest one smaller, and who could add them."""
    units = inputs // UNIT
    counts = sorted({-(-units // size) for size in range(1, units + 1)})
    for count in counts if parts is None else [parts] if 1 <= parts <= units else []:
        sizes = cut(inputs, count, UNIT)
        if least_weight_banks(sizes[0]) + SPARE_BANKS < BANKS:
            adders = [Sums.SINGLE] if count == 1 else [Sums.HOST, Sums.CHAIN] if sums is None else [sums]
            yield from ((sizes, adder) for adder in adders)


def _candidates(
    rows: int,
    columns: int,
    parts: tuple[int, ...],
    sums: Sums,
    tile_rows: int,
    order: tuple[Reuse, ...],
    most_cores: int,
    window: int,
) -> Iterator[_Candidate]:
    planes = {Sums.SINGLE: 1, Sums.HOST: len(parts), Sums.CHAIN: 2}[sums]
    blocks = _blocks(rows, columns, sum(parts), planes, window)
    if blocks is None:
        return
    for most_rows in _tile_rows(rows, parts, tile_rows):
        for cores in range(most_cores, 0, -1):
            for by_rows in (False, True):
                for stays in order:
                    yield _Candidate(parts, sums, most_rows, cores, by_rows, stays, *blocks)


def _tile_rows(rows: int, parts: tuple[int, ...], limit: int) -> list[int]:
    """The most rows that fit each number of data banks next to one kernel group, without repetitions."""
    found: dict[int, int] = {}
    for banks in range(1, BANKS - SPARE_BANKS - least_weight_banks(parts[0]) + 1):
        most = min(banks * BANK_BYTES // parts[0], limit, LARGEST_ROWS)
        if any(part in FAILING_INPUTS for part in parts):
            most = min(most, ROW_UNIT)
        most = most // ROW_UNIT * ROW_UNIT if rows > 1 else min(most, 1)
        if most:
            found.setdefault(-(-rows // most), most)
    return list(found.values())


def _blocks(rows: int, columns: int, inputs: int, planes: int, window: int) -> tuple[int, int] | None:
    """How many blocks of rows and of columns let a kick's operands and results fit the window together."""
    half = max(1, window // 2 // inputs // UNIT * UNIT)
    for column_blocks in range(-(-columns // half), columns // UNIT + 1):
        block_columns = cut(columns, column_blocks, UNIT)[0]
        left = window - block_columns * inputs
        most = left // (inputs + planes * SUM_BYTES * block_columns)
        most = most // ROW_UNIT * ROW_UNIT if rows > 1 else min(most, 1)
        if most >= 1:
            return -(-rows // most), column_blocks
    return None


def _within_a_kick(candidate: _Candidate, rows: int, columns: int) -> _Candidate | None:
    """The candidate with as many row blocks as keep every core's tasks within one kick; None where cores
    would be idle or a block gets no rows."""
    while True:
        units = -(-rows // ROW_UNIT)
        if candidate.row_blocks > units:
            return None
        block_rows = cut(rows, candidate.row_blocks, ROW_UNIT)[-1]
        block_columns = cut(columns, candidate.column_blocks, UNIT)[-1]
        work = len(candidate.row_tiles(block_rows)) if candidate.by_rows else block_columns // UNIT
        if work < candidate.cores:
            return None
        block_rows = cut(rows, candidate.row_blocks, ROW_UNIT)[0]
        block_columns = cut(columns, candidate.column_blocks, UNIT)[0]
        tiles, core_columns = candidate.shares(block_rows, block_columns)[0]
        weight_banks = candidate.banks(block_rows)[1]
        each = len(tiles) * len(candidate.column_tiles(core_columns, weight_banks))
        parts = len(candidate.parts)
        tasks = each * (2 * parts - 1 if candidate.sums is Sums.CHAIN else parts)
        if tasks <= TASKS_IN_KICK:
            return candidate
        candidate = replace(candidate, row_blocks=candidate.row_blocks * -(-tasks // TASKS_IN_KICK))


def _cost(candidate: _Candidate, rows: int, columns: int, rates: NpuRates) -> Cost:
    """What the formula says of a candidate, by sizes and how often each occurs."""
    seconds, moved, kicks = 0.0, 0, 0
    for block_rows, row_times in _counted(cut(rows, candidate.row_blocks, ROW_UNIT)):
        for block_columns, column_times in _counted(cut(columns, candidate.column_blocks, UNIT)):
            slowest, block_moved = _block(candidate, block_rows, block_columns, rates)
            times = row_times * column_times
            seconds += times * kick_seconds(rates, slowest_core=slowest, moved_bytes=block_moved)
            moved += times * block_moved
            kicks += times
    back = _read_back(rows, columns, candidate.parts, candidate.sums)
    macs = rows * columns * sum(candidate.parts)
    return Cost(kicks, seconds, macs, moved, back, back / rates.bus_bandwidth)


def _block(candidate: _Candidate, block_rows: int, block_columns: int, rates: NpuRates) -> tuple[float, int]:
    """Seconds of the slowest core, which is the first, and bytes moved by all, for one kick."""
    weight_banks = candidate.banks(block_rows)[1]
    inputs = sum(candidate.parts)
    shares = candidate.shares(block_rows, block_columns)
    moved = 0.0
    for tiles, columns in shares:
        column_tiles = candidate.column_tiles(columns, weight_banks)
        own_rows = sum(tiles)
        if candidate.stays is Reuse.DATA:
            moved += inputs * (own_rows + len(tiles) * columns)
        else:
            moved += inputs * (own_rows * len(column_tiles) + columns)
        additions = len(candidate.parts) - 1 if candidate.sums is Sums.CHAIN else 0
        moved += own_rows * columns * (SUM_BYTES * len(candidate.parts) + ADDITION_BYTES * additions)
        programs = len(tiles) * len(column_tiles) * (len(candidate.parts) + additions)
        moved += programs * rates.program_bytes
    tiles, columns = shares[0]
    column_tiles = candidate.column_tiles(columns, weight_banks)
    slowest = sum(
        times
        * _part_seconds(candidate.stays, rates, candidate.cores, tiles, column_tiles, part, weight_banks)
        for part, times in _counted(candidate.parts)
    )
    if candidate.sums is Sums.CHAIN:
        slowest += (len(candidate.parts) - 1) * sum(
            row_times * column_times * addition_seconds(rates, candidate.cores, elements=tile * column_tile)
            for tile, row_times in _counted(tiles)
            for column_tile, column_times in _counted(column_tiles)
        )
    return slowest, round(moved)


def _part_seconds(
    stays: Reuse,
    rates: NpuRates,
    active: int,
    tiles: tuple[int, ...],
    column_tiles: tuple[int, ...],
    part: int,
    weight_banks: int,
) -> float:
    """Seconds of one core for one input part. What stays is loaded once: activations with the first column
    tile of a row tile, or weights with the first row tile of a column tile."""
    streamed = weight_banks * BANK_BYTES >= 2 * UNIT * part
    seconds = 0.0
    for rows, row_times in _counted(tiles):
        for columns, column_times in _counted(column_tiles):
            loads = row_times * column_times
            data = part * rows * loads
            weights = part * columns
            if stays is Reuse.DATA:
                data = part * rows * row_times if columns == column_tiles[0] else 0
            cases = [(loads, weights)]
            if stays is Reuse.WEIGHT:
                first = column_times if rows == tiles[0] else 0
                cases = [(first, weights), (loads - first, 0)]
            for times, loaded in cases:
                seconds += times * product_seconds(
                    rates,
                    active,
                    macs=rows * columns * part,
                    data_bytes=0,
                    stream_bytes=loaded + SUM_BYTES * rows * columns,
                    streamed=streamed,
                )
            seconds += data / rates.share(active)
    return seconds


def _read_back(rows: int, columns: int, parts: tuple[int, ...], sums: Sums) -> int:
    return rows * columns * SUM_BYTES * (len(parts) if sums is Sums.HOST else 1)


def _tiling(
    shape: tuple[int, int, int], padded: tuple[int, int, int], candidate: _Candidate, cost: Cost
) -> Tiling:
    row_blocks = _starts(cut(padded[0], candidate.row_blocks, ROW_UNIT))
    column_blocks = _starts(cut(padded[1], candidate.column_blocks, UNIT))
    parts = _starts(candidate.parts)
    return Tiling(
        *shape,
        *padded,
        row_tiles=tuple(
            tile for block in row_blocks for tile in _starts(candidate.row_tiles(block.size), block.start)
        ),
        input_parts=parts,
        sums=candidate.sums,
        kicks=tuple(
            _kick(candidate, parts, rows, columns) for rows in row_blocks for columns in column_blocks
        ),
        cost=cost,
    )


def _kick(candidate: _Candidate, parts: tuple[Span, ...], rows: Span, columns: Span) -> Kick:
    cores = []
    row, column = rows.start, columns.start
    data, weight = candidate.banks(rows.size)
    for tiles, core_columns in candidate.shares(rows.size, columns.size):
        row_tiles = _starts(tiles, row)
        column_tiles = _starts(candidate.column_tiles(core_columns, weight), column)
        cores.append(tuple(_tasks(candidate, parts, row_tiles, column_tiles, data, weight)))
        if candidate.by_rows:
            row += sum(tiles)
        else:
            column += core_columns
    return Kick(rows, columns, tuple(cores))


def _tasks(
    candidate: _Candidate,
    parts: tuple[Span, ...],
    row_tiles: tuple[Span, ...],
    column_tiles: tuple[Span, ...],
    data: int,
    weight: int,
) -> Iterator[Task]:
    """One core's tasks in order: parts outside; inside, the operand that stays changes last. Additions of a
    part follow all its products, so that no other program comes between two that share an operand."""
    for number, inputs in enumerate(parts):
        if candidate.stays is Reuse.DATA:
            tiles = [(rows, columns, i) for rows in row_tiles for i, columns in enumerate(column_tiles)]
        else:
            tiles = [(rows, columns, i) for columns in column_tiles for i, rows in enumerate(row_tiles)]
        for rows, columns, i in tiles:
            reuse = candidate.stays if i else Reuse.NONE
            yield Product(rows, columns, inputs, number, data, weight, reuse)
        if number and candidate.sums is Sums.CHAIN:
            for rows, columns, _ in tiles:
                yield Addition(rows, columns, number)


def _refusal(rows: int, inputs: int, parts: int | None, window: int) -> str:
    least = min(rows, ROW_UNIT) * (inputs + SUM_BYTES * UNIT) + UNIT * inputs
    if parts is not None:
        return (
            f"{inputs} inputs are cut into {parts} parts, expected parts of at least {UNIT} inputs of which "
            f"{UNIT} kernels fit {BANKS - SPARE_BANKS - 1} banks of {BANK_BYTES} bytes; choose another number"
        )
    return (
        f"{UNIT} columns of {inputs} inputs need {least} bytes at once, expected at most {window} in a kick; "
        "split the inputs"
    )


def _starts(sizes: Iterable[int], start: int = 0) -> tuple[Span, ...]:
    spans = []
    for size in sizes:
        spans.append(Span(start, size))
        start += size
    return tuple(spans)


def _counted(sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Sizes of an even cut, largest first, with how often each occurs."""
    most = sizes[0]
    times = sizes.count(most)
    rest = sizes[times:]
    return ((most, times), *(((rest[0], len(rest)),) if rest else ()))


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit
