"""The native program as the engine uses it: one step for many sequences, whose arrays stay where they are."""

import ctypes
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rockledge.board.memory import pages_of
from rockledge.errors import NativeError
from rockledge.runtime import native
from rockledge.runtime.drawing import Drawing, Given
from rockledge.runtime.kv_cache import CachedSequence
from rockledge.runtime.offload.native_plan import npu_work, use_npu
from rockledge.runtime.offload.use import NpuUse
from rockledge.runtime.program import ProgramPlan
from rockledge.runtime.sampling import Sampling

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

_MOST_SEQUENCES = 64  # of a step: those that write, and as many prompts beside them


class SingleStep:
    """One row of one sequence, with its logits: the decode loop changes three numbers and calls `run`.

    `logits` fp32 [vocab] is overwritten by every run; `draw(number)` samples from it.
    """

    def __init__(self, program: native.Program, table_width: int, sampling: Sampling) -> None:
        self._token = np.zeros(1, np.int32)
        self._position = np.zeros(1, np.int32)
        self._table = _tables(program, 1, table_width)
        self._rows = np.zeros((1, program.vocab), np.float32)
        self.logits: Float32 = self._rows[0]
        zero = np.zeros(1, np.int32)
        step = native.Step(self._token, self._position, zero, self._table, zero)
        self._run = program.prepare(step, self._rows)
        self.draw: Callable[[int], int] = native.sampler(
            self.logits,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            seed=sampling.seed_or_fresh(),
        )

    def write_table(self, sequence: CachedSequence) -> None:
        """Takes over the pages of `sequence`; needed whenever they changed."""
        sequence.write_table(self._table[:, 0])

    def run(self, token: int, position: int) -> None:
        """Computes the logits after `token` at `position`, whose page must be in the table."""
        self._token[0] = token
        self._position[0] = position
        self._run()


class BatchStep:
    """One row of each of several sequences, with their logits fp32 [sequences, vocab]."""

    def __init__(self, program: native.Program, sequences: int, table_width: int, sampling: Sampling) -> None:
        self._tokens = np.zeros(sequences, np.int32)
        self._positions = np.zeros(sequences, np.int32)
        self._table = _tables(program, sequences, table_width)
        self.logits: Float32 = np.zeros((sequences, program.vocab), np.float32)
        rows = np.arange(sequences, dtype=np.int32)
        step = native.Step(self._tokens, self._positions, rows, self._table, rows)
        self.run: Callable[[], None] = program.prepare(step, self.logits)
        seed = sampling.seed_or_fresh()
        self._draws = [
            native.sampler(
                row,
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                min_p=sampling.min_p,
                seed=seed + number,
            )
            for number, row in enumerate(self.logits)
        ]

    def draw(self, number: int) -> Int32:
        """The next token of every row, drawn from its logits; `run` computes what follows them."""
        self._tokens[:] = [draw(number) for draw in self._draws]
        return self._tokens.copy()

    def place(self, row: int, sequence: CachedSequence) -> None:
        """Row `row` follows the tokens of `sequence`; its page must be reserved."""
        self._positions[row] = sequence.length
        sequence.write_table(self._table[:, row])


def _tables(program: native.Program, sequences: int, width: int) -> Int32:
    return np.zeros((len(program.shape.pools), sequences, width), np.int32)


class Executor:
    """A program with its arena, cache pools and threads. Not for two threads at once: whoever runs a step, of
    those that it made too, holds `lock`."""

    def __init__(
        self,
        plan: ProgramPlan,
        *,
        max_rows: int,
        context: int,
        pools: tuple[native.Pool, ...],
        threads: int,
        kernel: str,
    ) -> None:
        shape = plan.shape(max_rows, context, pools)
        self._program = native.Program(
            plan.ops, plan.bands, plan.buffers, shape, threads=threads, kernel=kernel
        )
        self.lock = threading.Lock()
        self.max_rows = max_rows
        self.threads = threads
        self.kernel = self._program.kernel
        self.pools = pools
        self._pages = pages_of(context)
        self._ops = plan.ops
        self.slots = min(max_rows, _MOST_SEQUENCES)
        self.logit_rows = shape.logit_rows
        self.tokens: Int32 = np.zeros(max_rows, np.int32)
        self.positions: Int32 = np.zeros(max_rows, np.int32)
        self.sequences: Int32 = np.zeros(max_rows, np.int32)
        self.wanted: Int32 = np.zeros(max_rows, np.int32)
        self.tables = _tables(self._program, self.slots, self._pages)
        self.step_bytes = plan.step_bytes()
        self._before_logits = next(i for i, op in enumerate(plan.ops) if op.on_logits)
        self._vocab = self._program.vocab
        self._draws = (ctypes.c_void_p * max(1, self.logit_rows))()
        self._record = native.StepRecord(
            sequences_count=self.slots,
            table_width=self._pages,
            tokens=self.tokens.ctypes.data,
            positions=self.positions.ctypes.data,
            sequences=self.sequences.ctypes.data,
            block_tables=self.tables.ctypes.data,
            logit_rows=self.wanted.ctypes.data,
        )
        self._whole = self._program.prepared(self._record)
        self._without_logits = self._program.prepared(self._record, last=self._before_logits)

    @property
    def bytes(self) -> int:
        """Bytes of arena and cache that the program holds, a shared cache not among them."""
        memory = self._program.memory
        return memory.arena + memory.cache

    def run(self, tokens: Int32, sequence: CachedSequence, logits: Float32 | None) -> None:
        """Runs `tokens` int32 [rows] after the tokens of `sequence`; their pages must be reserved.

        `logits` fp32 [count, vocab] receives those of the last `count` rows; None skips everything that only
        logits need. The sequence is not advanced. Raises NativeError.
        """
        rows = len(tokens)
        positions = np.arange(sequence.length, sequence.length + rows, dtype=np.int32)
        table = _tables(self._program, 1, self._pages)
        sequence.write_table(table[:, 0])
        zeros = np.zeros(rows, np.int32)
        if logits is None:
            step = native.Step(tokens, positions, zeros, table)
            self._program.run(step, last=self._before_logits)
        else:
            wanted = np.arange(rows - len(logits), rows, dtype=np.int32)
            self._program.run(native.Step(tokens, positions, zeros, table, wanted), logits)

    def step(self, rows: int, draws: Sequence[Drawing | Given] = (), results: Float32 | None = None) -> None:
        """Runs the first `rows` entries of `tokens`, `positions` and `sequences` (a slot of `tables`).

        Row wanted[i] gives draws[i], of which there are up to `logit_rows`. With `results` fp32 [n, vocab]
        instead (of a model without a head [n, hidden]), what rows wanted[:n] give is written there, n up to
        `max_rows`. With neither everything that only logits need is skipped. Raises NativeError when
        something is out of range; nothing was computed then.
        """
        record, run = self._record, self._whole
        record.rows, record.logits, record.draws = rows, None, None
        if draws:
            if len(draws) > self.logit_rows:
                raise NativeError(f"{len(draws)} draws in a step, expected at most {self.logit_rows}")
            for number, draw in enumerate(draws):
                self._draws[number] = draw.address
            record.logit_count, record.draws = len(draws), ctypes.addressof(self._draws)
        elif results is not None:
            wrong = results.dtype != np.float32 or results.shape[1:] != (self._vocab,)
            if wrong or not (results.flags.c_contiguous and results.flags.writeable):
                raise NativeError(
                    f"results are {results.dtype} {results.shape}, expected contiguous writable float32 "
                    f"[rows, {self._vocab}]"
                )
            record.logit_count, record.logits = len(results), results.ctypes.data
        else:
            record.logit_count, run = 0, self._without_logits
        run()

    def single_step(self, sampling: Sampling) -> SingleStep:
        """A decode step of its own for one request."""
        return SingleStep(self._program, self._pages, sampling)

    def batch_step(self, sequences: int, sampling: Sampling) -> BatchStep:
        """A decode step for several sequences at once; at most `max_rows`. Row i is drawn with seed + i."""
        return BatchStep(self._program, sequences, self._pages, sampling)

    def time_operations(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The names of the operations, and the nanoseconds of each that all steps from now on add to."""
        return [op.code.name.lower() for op in self._ops], self._program.time_operations()

    def copy_page(self, pool: int, source: int, target: int) -> None:
        """Copies a cache page, all layers of its pool."""
        self._program.copy_page(pool, source, target)

    def page_bytes(self, pool: int) -> int:
        """Bytes of a cache page, all layers of its pool."""
        return self._program.page_bytes(pool)

    def read_page(self, pool: int, page: int, out: UInt8) -> None:
        """Copies a cache page into `out` uint8 [page_bytes]."""
        self._program.read_page(pool, page, out)

    def write_page(self, pool: int, page: int, data: UInt8) -> None:
        """Makes `data` uint8 [page_bytes], which `read_page` gave, the content of a cache page."""
        self._program.write_page(pool, page, data)

    def share_cache(self, other: "Executor") -> None:
        """Works on the cache pages of `other` from now on; both may run at once, on different sequences."""
        self._program.share_cache(other._program)

    def use_npu(self, npu: NpuUse) -> None:
        """Runs the linears of large steps on the NPU. Raises NpuError."""
        use_npu(self._program, npu.device, npu.offload)
        npu.watch(lambda: npu_work(self._program))

    def close(self) -> None:
        """Ends the threads and frees the memory."""
        self._program.close()
