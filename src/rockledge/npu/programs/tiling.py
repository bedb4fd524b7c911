"""How one matmul is cut for the NPU: which rows, columns and inputs every register program takes, and where.

C[M, N] = A[M, K] x B[K, N], int8 x int8 -> int32. A tiling partitions rows, columns and inputs of the padded
shape; every (row, column, input) lies in exactly one `Product`. Nothing here knows addresses or registers.

What the tiles mean for the code that places the operands:
- A is packed by row tile, each in the native layout [K/16][rows][16] with all padded inputs, so that the
  inputs of a part are one contiguous run of it.
- B is packed by input part, each in the native layout [N/32][inputs/32][32][32] with all padded columns, so
  that the columns of a product are one contiguous run of it.
- C is written by row tile and part in the native layout [N/4][rows][4].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

TASKS_IN_KICK: Final = 4095
"""Tasks of one core in one kick: TASK_CON counts them in 12 bits [T]."""


@dataclass(frozen=True)
class Span:
    """The half-open range [start, start + size) of rows, columns or inputs."""

    start: int
    size: int

    @property
    def stop(self) -> int:
        return self.start + self.size


class Reuse(Enum):
    """Which operand stays in the convolution buffer from the task before it on the same core and in the same
    kick (CBUF_CON0, never both)."""

    NONE = "none"
    DATA = "data"
    WEIGHT = "weight"


class Sums(Enum):
    """Who adds the int32 sums of the input parts. `SINGLE`: there is one part. `HOST`: every part is written
    to a plane of its own, the CPU adds them. `CHAIN`: the first part is written to the result; every later
    one to a scratch plane, and an `Addition` after it adds that into the result on the NPU."""

    SINGLE = "single"
    HOST = "host"
    CHAIN = "chain"


@dataclass(frozen=True)
class Product:
    """One matmul program. `rows.size` is 1 or a multiple of 4, `columns` and `inputs` are multiples of 32.

    `part` numbers the input part. `data_banks` (with the spare bank that int8 needs) + `weight_banks` <= 12.
    """

    rows: Span
    columns: Span
    inputs: Span
    part: int
    data_banks: int
    weight_banks: int
    reuse: Reuse


@dataclass(frozen=True)
class Addition:
    """One DPU program after the product of `part` (>= 1): result += scratch over these rows and columns."""

    rows: Span
    columns: Span
    part: int


Task = Product | Addition


@dataclass(frozen=True)
class Kick:
    """What one submit runs: the tasks of each core in order (at most TASKS_IN_KICK a core, or none), for a
    block of rows and columns whose operands and results fit the address window together."""

    rows: Span
    columns: Span
    cores: tuple[tuple[Task, ...], ...]


@dataclass(frozen=True)
class Cost:
    """What the time formula (`board/npu_time.py`) says of a tiling; modelled.

    `npu_seconds`: all kicks, with nothing else on the bus. `macs`: products with padding. `moved_bytes`: what
    the NPU reads and writes; `read_back_bytes`: int32 sums that the CPU reads afterwards.
    """

    kicks: int
    npu_seconds: float
    macs: int
    moved_bytes: int
    read_back_bytes: int
    read_back_seconds: float

    @property
    def seconds(self) -> float:
        """What a search makes small: the NPU's time, then reading the sums over the same bus."""
        return self.npu_seconds + self.read_back_seconds


@dataclass(frozen=True)
class Tiling:
    """A matmul of `m` x `n` x `k`, cut. Row tiles and input parts are the same for every core and column.

    `padded_rows` is m where m is 1, else the next multiple of 4; `padded_columns` and `padded_inputs` are the
    next multiples of 32.
    """

    m: int
    n: int
    k: int
    padded_rows: int
    padded_columns: int
    padded_inputs: int
    row_tiles: tuple[Span, ...]
    input_parts: tuple[Span, ...]
    sums: Sums
    kicks: tuple[Kick, ...]
    cost: Cost

    def tasks(self) -> Iterator[Task]:
        """Every task of every kick and core."""
        for kick in self.kicks:
            for core in kick.cores:
                yield from core
