"""The native program as the engine uses it: one step for many sequences, whose arrays stay where they are."""

import ctypes
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rockledge.artifact.uncached import UncachedFile
from rockledge.board.memory import pages_of
from rockledge.errors import NativeError
from rockledge.runtime import native
from rockledge.runtime.drawing import Drawing, Given
from rockledge.runtime.native_step import BatchRecord, Step
from rockledge.runtime.offload.native_attention import attend_on_npu
from rockledge.runtime.offload.native_plan import npu_work, use_npu
from rockledge.runtime.offload.use import NpuUse
from rockledge.runtime.program import ProgramPlan
from rockledge.runtime.streaming.fit import Fit
from rockledge.runtime.streaming.pieces import Piece
from rockledge.runtime.streaming.stream import ReadAt, WeightStream

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

_MOST_SEQUENCES = 64  # of a step: those that write, and as many prompts beside them


def _tables(step: Step, sequences: int, width: int) -> Int32:
    return np.zeros((len(step.program.shape.pools), sequences, width), np.int32)


class Executor:
    """What runs steps over a program and its cache, with arena and threads of its own. Not for two threads at
    once."""

    def __init__(
        self,
        plan: ProgramPlan,
        *,
        max_rows: int,
        context: int,
        pools: tuple[native.Pool, ...],
        threads: int,
        kernel: str,
        beside: "Executor | None" = None,
    ) -> None:
        """`beside`: over the program and the cache of that one, whose steps are no smaller."""
        if beside is None:
            shape = plan.shape(max_rows, context, pools)
            self._program = native.Program(plan.ops, plan.bands, plan.buffers, shape, kernel=kernel)
        else:
            self._program = beside._program
        self._owns_program = beside is None
        self._shared_bytes = self._program.memory.working + self._program.memory.cache
        self._step = Step(self._program, max_rows=max_rows, threads=threads)
        self.max_rows = max_rows
        self.threads = self._used = threads
        self.kernel = self._program.kernel
        self.pools = pools
        self._plan = plan
        self._context = context
        self._pages = pages_of(context)
        self._ops = plan.ops
        self.slots = min(max_rows, _MOST_SEQUENCES)
        self.logit_rows = self._step.logit_rows
        self.tokens: Int32 = np.zeros(max_rows, np.int32)
        self.positions: Int32 = np.zeros(max_rows, np.int32)
        self.sequences: Int32 = np.zeros(max_rows, np.int32)
        self.wanted: Int32 = np.zeros(max_rows, np.int32)
        self.tables = _tables(self._step, self.slots, self._pages)
        self.step_bytes = plan.step_bytes()
        self._before_logits = next(i for i, op in enumerate(plan.ops) if op.on_logits)
        self._vocab = self._program.vocab
        self._draws = (ctypes.c_void_p * max(1, self.logit_rows))()
        self._record = BatchRecord(
            sequences_count=self.slots,
            table_width=self._pages,
            tokens=self.tokens.ctypes.data,
            positions=self.positions.ctypes.data,
            sequences=self.sequences.ctypes.data,
            block_tables=self.tables.ctypes.data,
            logit_rows=self.wanted.ctypes.data,
        )
        self._uses_npu = False
        self.weights: WeightStream | None = None
        """What reads the weights while steps run; None: they are all in memory."""
        self._whole = self._step.prepared(self._record)
        self._only_logits = self._step.prepared(self._record, self._before_logits)
        self._without_logits = self._step.prepared(self._record, last=self._before_logits)

    @property
    def bytes(self) -> int:
        """Bytes of the arena, and of cache and tables unless they belong to the executor beside."""
        return self._step.arena_bytes + (self._shared_bytes if self._owns_program else 0)

    def beside(self, max_rows: int) -> "Executor":
        """Another one over the same program and cache, for steps of up to `max_rows` rows; both may run at
        once, on different sequences."""
        return Executor(
            self._plan,
            max_rows=max_rows,
            context=self._context,
            pools=self.pools,
            threads=self.threads,
            kernel=self.kernel,
            beside=self,
        )

    def place(self, row: int, slot: int, tokens: Int32, first: int) -> None:
        """Entries from `row` on: `tokens` int32 [n] of the sequence in `slot`, from position `first` on."""
        until = row + len(tokens)
        self.tokens[row:until] = tokens
        self.positions[row:until] = range(first, first + len(tokens))
        self.sequences[row:until] = slot

    def step(
        self,
        rows: int,
        draws: Sequence[Drawing | Given] = (),
        results: Float32 | None = None,
        masks: Callable[[], object] | None = None,
    ) -> None:
        """Runs the first `rows` entries of `tokens`, `positions` and `sequences` (a slot of `tables`).

        Row wanted[i] gives draws[i], of which there are up to `logit_rows`. With `results` fp32 [n, vocab]
        instead (of a model without a head [n, hidden]), what rows wanted[:n] give is written there, n up to
        `max_rows`. With neither everything that only logits need is skipped. `masks`: waits for the masks of
        the draws, which are made meanwhile; it is called as late as possible. Raises NativeError when
        something is out of range, DiskError and ArtifactError where weights that are streamed cannot be
        read; nothing came of the step then.
        """
        record, run = self._record, self._whole
        record.rows, record.logits, record.draws = rows, None, None
        if draws:
            if len(draws) > self.logit_rows:
                raise NativeError(f"{len(draws)} draws in a step, expected at most {self.logit_rows}")
            for number, draw in enumerate(draws):
                self._draws[number] = draw.address
            record.logit_count = len(draws)
            if masks is not None:
                # The NPU's part of a step cannot be taken up again, and where weights are streamed the
                # disk would read on as if there were no logits.
                if not self._uses_npu and self.weights is None:
                    self._without_logits()
                    run = self._only_logits
                masks()
            record.draws = ctypes.addressof(self._draws)
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

    def use_threads(self, threads: int) -> None:
        """How many of its threads work on the steps from now on, at least one; no result changes."""
        wanted = max(1, min(threads, self.threads))
        if wanted != self._used:
            self._step.use_threads(wanted)
            self._used = wanted

    def time_operations(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The names of the operations, and the nanoseconds of each that all steps from now on add to."""
        return [op.code.name.lower() for op in self._ops], self._step.time_operations()

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

    def stream_weights(
        self, pieces: list[Piece], chosen: Fit, file: UncachedFile, mapping: int, read: ReadAt | None = None
    ) -> None:
        """From now on the weights are read from `file`, which is closed with the executor; the arguments are
        those of `WeightStream`. Raises NativeError."""
        self.weights = WeightStream(
            self._program,
            self._plan,
            pieces,
            chosen,
            file=file,
            mapping=mapping,
            threads=self.threads,
            read=read,
        )
        self._step.use_stream(self.weights)

    def use_npu(self, npu: NpuUse) -> None:
        """Runs the linears of large steps on the NPU, and attention if that is loaded. Raises NpuError."""
        use_npu(self._step, npu.device, npu.offload)
        if npu.attention is not None:
            attend_on_npu(self._step, npu.attention)
        self._uses_npu = True
        npu.watch(lambda: npu_work(self._step))

    def close(self) -> None:
        """Ends the threads and frees the memory; the cache stays for as long as one beside is open."""
        self._step.close()
        if self.weights is not None:
            self.weights.close()
        if self._owns_program:
            self._program.close()
