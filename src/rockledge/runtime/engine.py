"""The engine: one artifact loaded, and its requests in steps that serve many of them.

Tokens in, pieces of text, scores, logits or embeddings out. Chat templates and HTTP are the callers'
business; who is in a step is the scheduler's, and its work the native core's.
"""

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.artifact.background import BackgroundCheck
from rockledge.board.levers import Setting
from rockledge.board.memory import PAGE_TOKENS, SEQUENCES, kv_bytes
from rockledge.errors import UsageError
from rockledge.model.config import ModelConfig
from rockledge.model.source import source_name
from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.answer import Answer
from rockledge.runtime.answering import Answering
from rockledge.runtime.choices import PARALLEL, PREFIX_BYTES
from rockledge.runtime.cold_prefixes import ColdPrefixes
from rockledge.runtime.constraints.constraint import Constraint
from rockledge.runtime.constraints.grammar import GrammarMatcher, Grammars
from rockledge.runtime.drawing import Drawing
from rockledge.runtime.embedding import MeanState, unit_embedding
from rockledge.runtime.executor import Executor
from rockledge.runtime.kv_cache import PageCache
from rockledge.runtime.loading import Loaded, load_artifact
from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.offload.use import NpuUse
from rockledge.runtime.piece import Score
from rockledge.runtime.prefix import PrefixCache
from rockledge.runtime.prefix_store import PrefixStore
from rockledge.runtime.request import EngineStats, Output, Request
from rockledge.runtime.request_checks import RequestChecks
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.scheduler import Scheduler, Share
from rockledge.runtime.sequence import Sequence as Running
from rockledge.runtime.step import StepResult, run_step
from rockledge.runtime.step_budget import StepBudget
from rockledge.runtime.stepper import Generation, Stepper, last_output
from rockledge.runtime.streaming.status import StreamStats
from rockledge.runtime.streaming.step_budget import StreamedStepBudget
from rockledge.runtime.streaming.stream import ReadAt

GREEDY = Sampling()

_IDLE_S = 0.01  # how long a step waits for the disk or a grammar when it has nothing else to do

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

log = logging.getLogger(__name__)


def _never() -> bool:
    return False


class Engine:
    """A loaded artifact. `context` is the most tokens a sequence may have, prompt and answer together;
    `footprint` says what was chosen for the memory.

    Requests are submitted, and every call of `step` takes all that run one step further. `generate`, `score`
    and `embed` are for callers with one request: they step until theirs is done, and may be called from
    several threads.
    """

    def __init__(
        self,
        loaded: Loaded,
        name: str,
        *,
        parallel: int = PARALLEL,
        prefixes: bool = True,
        store: PrefixStore | None = None,
        step_s: float | None = None,
    ) -> None:
        """`parallel`: requests that run at a time. `prefixes`: whether what was read is found again, in
        `store` also what has left the cache; it is closed with the engine.
        `step_s`: seconds a step may take for the sake of a prompt, None for what suits."""
        self.artifact = loaded.artifact
        self.name = name
        self.footprint = loaded.footprint
        self.context = loaded.footprint.context
        self.config: ModelConfig = loaded.artifact.config
        self.tokenizer = Tokenizer.from_files(loaded.artifact.files)
        self.chat = loaded.chat
        self._checks = RequestChecks(name, self.config, self.context)
        self._loaded = loaded
        self._npu = loaded.npu
        self._eos = frozenset(self.config.eos)
        self._check: BackgroundCheck | None = None
        decode = loaded.decode
        pools = [(pool.window, pool.pages) for pool in loaded.prefill.pools]
        self._cache = PageCache(pools, PAGE_TOKENS, loaded.prefill.copy_page)
        self._prefixes = PrefixCache(self._cache, loaded.root) if prefixes else None
        self._cold: ColdPrefixes | None = None
        if store is not None and self._prefixes is not None:
            self._cold = ColdPrefixes(self._prefixes, self._cache, loaded.prefill, store)
        most = decode.slots if self.config.headless else min(decode.slots, decode.logit_rows)
        if not 1 <= parallel <= most:
            raise UsageError(f"{parallel} requests in parallel, expected 1 to {most}")
        self._scheduler = Scheduler(
            self._cache,
            self._prefixes,
            self._cold,
            slots=parallel,
            step_rows=loaded.prefill.max_rows,
            logit_rows=decode.max_rows if self.config.headless else decode.logit_rows,
        )
        self._budget = self._step_budget(decode, step_s)
        self._use_threads = decode.threads
        self._lock = threading.Lock()  # through `_alone` only
        self._numbers = itertools.count()
        self._answering = Answering(self._scheduler, self._eos)
        # With an NPU a part of a prompt runs in this thread, beside the answers of others.
        self._beside = ThreadPoolExecutor(1, "rockledge-prefill") if isinstance(self._npu, NpuUse) else None
        self._reading: tuple[Share, Future[StepResult]] | None = None
        self._grammars: Grammars | None = None  # made for the first constraint
        self._compiling: dict[Running, Future[GrammarMatcher]] = {}

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        ctx: int | None = None,
        memory: int | None = None,
        memory_budget: int | None = None,
        kernel: str = "auto",
        npu: str = "auto",
        npu_rows: int | None = None,
        npu_attention_from: int | None = None,
        sequences: int = SEQUENCES,
        parallel: int = PARALLEL,
        prefixes: bool = True,
        prefix_dir: Path | None = None,
        prefix_bytes: int = PREFIX_BYTES,
        step_s: float | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        read: ReadAt | None = None,
    ) -> "Engine":
        """Maps the artifact at `path` and prepares its program.

        `threads`: None for one per fast core. `ctx`: tokens of context, None for min(the model's, 4096, what
        `memory` allows). `memory`: bytes that weights, arena, cache and NPU buffers may take together.
        `memory_budget`: likewise, but weights that do not fit are read from the disk in every step, and the
        NPU is not used then; `read` reads them in place of the file's own reads.
        `kernel`: a name of `choices.KERNELS`. `npu`: "auto" reads prompts on the NPU where
        one can be used, "off" leaves it alone, "require" fails without it. `npu_rows`: prompts go there in
        steps of so many tokens or more, None for as many as the board's facts say. `npu_attention_from`:
        their attention too, at positions from there on, None for never; no result depends on it.
        `parallel`: requests that run at a time.
        `prefixes`: what was read is found again, also what has left the cache if there is a `prefix_dir` of
        up to `prefix_bytes`. `step_s`: seconds a step may take for the sake of a prompt, None for what suits.
        `sequences`: how many that
        are longer than a window have room at a time in layers that have one. `chat_template`: a Jinja
        template in place of the model's own; `chat_template_kwargs`: variables for it, such as
        `enable_thinking`.
        Raises ArtifactError, UsageError, BudgetError (naming what fits), NativeError, NpuError and DiskError.
        """
        path = Path(path)
        loaded = load_artifact(
            path,
            threads=threads,
            ctx=ctx,
            memory=memory,
            memory_budget=memory_budget,
            kernel=kernel,
            npu=npu,
            npu_rows=npu_rows,
            npu_attention_from=npu_attention_from,
            sequences=sequences,
            chat_template=chat_template,
            chat_template_kwargs=chat_template_kwargs or {},
            read=read,
        )
        try:
            store = None if prefix_dir is None else PrefixStore(prefix_dir, prefix_bytes, loaded.root)
            return cls(
                loaded,
                source_name(path),
                parallel=parallel,
                prefixes=prefixes,
                store=store,
                step_s=step_s,
            )
        except BaseException:
            loaded.close()
            raise

    @staticmethod
    def _step_budget(executor: Executor, step_s: float | None) -> StepBudget | StreamedStepBudget:
        stream = executor.weights
        if stream is None:
            return StepBudget(executor.max_rows, step_s)
        return StreamedStepBudget(executor.max_rows, step_s, lambda: stream.waited_s)

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """As `Artifact.verify`; where weights are streamed it leaves nothing in the page cache either."""
        stream = self._loaded.decode.weights
        self.artifact.verify(progress, None if stream is None else stream.file)

    @contextmanager
    def checked(self) -> Iterator[BackgroundCheck]:
        """Reads every byte of the artifact in the background meanwhile: once damage is found, `generate` and
        `logits` raise ArtifactError, at the latest the end of the block does. A block that fails by itself
        does not wait."""
        check = self._check = BackgroundCheck(self.verify)
        check.start()
        try:
            yield check
            check.finish()
        finally:
            self._check = None
            check.stop()

    def _require_whole(self) -> None:
        if self._check is not None:
            self._check.require()

    def close(self) -> None:
        """Ends what is open as cancelled, writes prefixes out, and frees the native programs and the NPU.
        Closing twice is allowed; afterwards `step` returns the last outputs, and `npu` may be used."""
        with self._alone():
            if self._beside is not None:
                self._beside.shutdown(wait=True)
            if self._reading is not None:
                self._reading[0].sequence.busy, self._reading = False, None
            for sequence in self._answering.open():
                self._answering.end_soon(sequence, "cancelled")
            self._answering.take_out_ended()
            if self._grammars is not None:
                self._grammars.close()
            if self._cold is not None:
                self._cold.close()
                self._cold = None
            self._loaded.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def kernel(self) -> str:
        """Name of the kernel in use."""
        return self._loaded.prefill.kernel

    @property
    def threads(self) -> int:
        """Threads that work on a step."""
        return self._loaded.prefill.threads

    @property
    def native_bytes(self) -> int:
        """Bytes of arena and cache that the native core has taken, the NPU's buffers not among them."""
        return sum(executor.bytes for executor in {self._loaded.prefill, self._loaded.decode})

    @property
    def npu(self) -> NpuStatus:
        """Whether prefill runs on the NPU, why not, and its counters; also while requests run."""
        return self._npu.status() if isinstance(self._npu, NpuUse) else self._npu

    @property
    def streaming(self) -> StreamStats | None:
        """What is read from the disk, None where all weights are in memory."""
        stream = self._loaded.decode.weights
        return None if stream is None else stream.stats

    def adjust(self, setting: Setting) -> None:
        """From the next step on no more threads work than this, prompts have that share of the rows which
        they would have beside answers, and no more sequences are begun. No result changes."""
        with self._alone():
            self._use_threads = setting.threads
            self._budget.part = setting.prompt_share
            self._scheduler.most = max(1, setting.sequences)

    @property
    def step_bytes(self) -> int:
        """Bytes of weights a step with logits reads, however many rows it has: codes, indices, scales."""
        return self._loaded.prefill.step_bytes

    def time_operations(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Names of the native operations in order, and the nanoseconds of each, which all steps from now on
        add to: where the time goes. With an NPU in use only prefill steps do."""
        return self._loaded.prefill.time_operations()

    def cache_bytes_read(self, past: int) -> int:
        """Bytes of keys and values that a step reads in a sequence of `past` tokens."""
        return kv_bytes(self.config, past)

    @property
    def free_pages(self) -> int:
        """Cache pages that no request holds; some of them may keep prefixes until their room is needed."""
        with self._alone():
            return self._free_pages()

    def _free_pages(self) -> int:
        return sum(self._scheduler.free_pages(number) for number in range(len(self._cache.pools)))

    @property
    def pages(self) -> int:
        """Cache pages in all."""
        return self._cache.pages

    # Requests

    def submit(self, request: Request) -> None:
        """Takes a request, which then runs in steps. Raises UsageError and ContextError for one that never
        could."""
        prompt = self._checks.prompt(request)
        with self._alone():
            self._submit(request, prompt)

    def _submit(self, request: Request, prompt: Int32, inbox: deque[Output] | None = None) -> Running:
        if self._answering.find(request.id) is not None:
            raise UsageError(f"there is a request {request.id!r} already; give each an id of its own")
        answer = drawing = None
        room = 0
        if request.kind == "generate":
            # The last token drawn need not fit into the cache.
            room = min(request.max_tokens, self.context - len(prompt) + 1)
            answer = Answer(self.tokenizer, request.stop, request.logprobs is not None, request.shown)
            ends = {*self._eos, *request.sampling.stop_ids}
            drawing = Drawing(
                request.sampling, prompt, most=max(room, 1), ends=ends, logprobs=request.logprobs
            )
        sequence = Running(request, next(self._numbers), room, answer, drawing)
        if request.kind == "embed" and self.config.pooling == "mean":
            sequence.mean = MeanState(self.config.hidden)
        sequence.inbox = inbox
        self._answering.begin(sequence)
        if (request.kind == "generate" and room == 0) or (request.kind == "score" and len(prompt) == 1):
            self._answering.end(sequence, None if answer is None else answer.last("length"))
        else:
            self._scheduler.add(sequence)
            if request.constraint is not None:
                self._compile(sequence, request.constraint)
        return sequence

    def _compile(self, sequence: Running, constraint: Constraint) -> None:
        """Begins with the grammar of a sequence, which waits for it."""
        if self._grammars is None:
            self._grammars = Grammars(self.tokenizer, self._eos, self.config.vocab)
        ignore_eos = sequence.request.ignore_eos
        self._compiling[sequence] = self._grammars.compile(constraint, ignore_eos=ignore_eos)

    def cancel(self, request: str) -> None:
        """Ends a request before its next step; one that is not there is none's concern. From any thread, also
        from one that collects garbage; it never waits for a step."""
        sequence = self._answering.find(request)
        if sequence is not None:
            self._answering.end_soon(sequence, "cancelled")
            self._sweep()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The engine for this thread alone; what was cancelled meanwhile is taken out at the end."""
        try:
            with self._lock:
                yield
        finally:
            self._sweep()

    def _sweep(self) -> None:
        """Takes out what was cancelled, unless somebody has the engine, who does it afterwards."""
        while self._answering.has_ended():
            if not self._lock.acquire(blocking=False):
                return
            try:
                self._answering.take_out_ended()
            finally:
                self._lock.release()

    @property
    def idle(self) -> bool:
        """Whether no request is here, nor an output of one that `step` has yet to return."""
        return self._answering.idle

    def waiting(self) -> list[str]:
        """Ids of the requests that no step has worked on yet."""
        with self._alone():
            return [s.request.id for s in self._scheduler.waiting if not s.stats.prefill_tokens]

    def stats(self) -> EngineStats:
        """How it stands."""
        with self._alone():
            free = self._free_pages()
            return self._answering.stats(
                EngineStats(
                    running=len(self._scheduler.running),
                    decoding=sum(sequence.decoding for sequence in self._scheduler.running),
                    waiting=len(self._scheduler.waiting),
                    pages=self._cache.pages,
                    free_pages=free,
                    cold_pages=free - self._cache.free_pages,
                    preemptions=self._scheduler.preemptions,
                    npu=self.npu,
                    streaming=self.streaming,
                )
            )

    def step(self) -> list[Output]:
        """Takes the requests that are here one step further; returns what came of it.

        Raises ArtifactError where the artifact was found damaged, NativeError, and DiskError where weights
        that are streamed cannot be read; the requests that ran have to be cancelled then.
        """
        with self._alone():
            self._advance()
            return self._answering.take_outputs()

    def _advance(self) -> None:
        self._require_whole()
        for sequence in self._answering.open():
            if sequence.overdue:
                self._answering.end_soon(sequence, "deadline")
        self._answering.take_out_ended()
        self._step()
        self._answering.take_out_ended()

    def _step(self) -> None:
        for sequence in [s for s, future in self._compiling.items() if future.done()]:
            self._answering.constrain(sequence, self._compiling.pop(sequence))
        if self._beside is not None:
            self._read_beside(self._beside)
        shares = self._scheduler.plan(self._budget.rows, lambda s: s.ready and not self._goes_beside(s))
        if shares:
            written = sum(share.rows for share in shares if share.sequence.decoding)
            done = self._run(self._loaded.decode, shares)
            self._budget.ran(written, sum(share.rows for share in shares) - written, done.seconds)
            self._answering.take(shares, done)
        elif self._reading is not None:
            self._collect()
        elif self._cold is not None:
            self._cold.wait(_IDLE_S)
        elif self._compiling:
            wait(self._compiling.values(), _IDLE_S, FIRST_COMPLETED)

    def _goes_beside(self, sequence: Running) -> bool:
        """Whether the rest of its prompt is one for the NPU."""
        if not isinstance(self._npu, NpuUse) or sequence.read_whole or not sequence.ready:
            return False
        return self._npu.plan.takes(self._unscored(sequence))

    def _unscored(self, sequence: Running) -> int:
        """Pending tokens up to the first whose logits are wanted."""
        return sequence.told - sequence.length

    def _read_beside(self, thread: ThreadPoolExecutor) -> None:
        """Keeps a part of a prompt going on the NPU."""
        if self._reading is not None:
            if not self._reading[1].done():
                return
            self._collect()
        assert isinstance(self._npu, NpuUse)
        chunks = self._npu.plan.chunks
        share = self._scheduler.prompt(
            self._goes_beside, lambda s: chunks(self._unscored(s))[0] if self._goes_beside(s) else 0
        )
        if share is not None:
            share.sequence.busy = True
            self._reading = share, thread.submit(self._run, self._loaded.prefill, [share])

    def _collect(self) -> None:
        """Waits for the part of a prompt that runs in the other thread, and takes what came of it."""
        assert self._reading is not None
        (share, future), self._reading = self._reading, None
        share.sequence.busy = False
        done = future.result()
        if isinstance(self._npu, NpuUse):
            self._npu.log_failure()
        if share.sequence.ended is None:
            self._answering.take([share], done)

    def _run(self, executor: Executor, shares: Sequence[Share]) -> StepResult:
        keeps = executor is self._loaded.decode  # another's tables are written for every part anew
        fill = None if self._grammars is None else self._grammars.fill
        executor.use_threads(self._use_threads)
        return run_step(executor, shares, keeps_tables=keeps, hidden=self.config.hidden, fill=fill)

    # For callers with one request

    def generate(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        ignore_eos: bool = False,
        constraint: Constraint | None = None,
        cancelled: Callable[[], bool] = _never,
    ) -> Generation:
        """Continues `prompt` (token ids), yielding text as soon as it is certain.

        `logprobs`: how many alternatives to report beside each token (0: only its own), None for no scores.
        `constraint`: what the answer has to look like; UsageError with a piece where it cannot be used.
        `cancelled` is called before every step; once true, the pieces just end. The same seed gives the same
        text whatever else runs. Raises ContextError or UsageError here, before any work.
        """
        request = Request(
            self._id("generate"),
            tuple(prompt),
            max_tokens=max_tokens,
            sampling=sampling,
            stop=tuple(stop),
            logprobs=logprobs,
            ignore_eos=ignore_eos,
            constraint=constraint,
        )
        ids = self._checks.prompt(request)
        return Generation(lambda: self._open(request, ids), cancelled)

    def score(self, ids: Sequence[int], top: int = 0) -> list[Score]:
        """Log probability of every token of `ids` after the first, and the `top` most probable tokens there.

        Raises ContextError or UsageError.
        """
        request = Request(self._id("score"), tuple(ids), kind="score", logprobs=top)
        return list(self._whole(request).scores)

    def embed(self, ids: Sequence[int], *, dimensions: int | None = None) -> Float32:
        """The embedding of a text fp32 [hidden], of length 1: the normed state after its last token, or the
        mean of those after all of them, as the model has it.

        `ids` are of the whole text, as `Tokenizer.encode_whole` gives them. `dimensions`: so many of the
        first numbers, brought back to length 1; for models that are trained to be cut like this. Raises
        ContextError, or UsageError, also where the model has a language head.
        """
        self._checks.require_headless()
        size = self.config.hidden if dimensions is None else dimensions
        if not 1 <= size <= self.config.hidden:
            raise UsageError(f"an embedding of {size} dimensions, expected 1 to {self.config.hidden}")
        request = Request(self._id("embed"), tuple(ids), kind="embed")
        return unit_embedding(self._whole(request).embedding, size)

    def _id(self, kind: str) -> str:
        """One that no request has."""
        return next(name for n in self._numbers if self._answering.find(name := f"{kind}-{n}") is None)

    def _whole(self, request: Request) -> Output:
        """The one output of a request that gives no pieces."""
        return last_output(self._open(request, self._checks.prompt(request)))

    def _open(self, request: Request, prompt: Int32) -> Stepper:
        inbox: deque[Output] = deque()
        with self._alone():
            return Stepper(self, self._submit(request, prompt, inbox), inbox)

    def step_unless(self, arrived: Callable[[], bool]) -> None:
        """One step, unless `arrived` is true by the time that no other thread makes one."""
        with self._alone():
            if not arrived():
                self._advance()

    def logits(self, ids: Sequence[int], *, chunk: int | None = None) -> Float32:
        """Logits fp32 [len(ids), vocab] after every token. `chunk`: rows a step, which changes no result.

        The answer takes 4 * len(ids) * vocab bytes and nothing else grows with the text. Raises ContextError
        or UsageError, and CacheFullError when requests hold the pages.
        """
        self._checks.require_head()
        return self._results(ids, self.config.vocab, chunk)

    def states(self, ids: Sequence[int], *, chunk: int | None = None) -> Float32:
        """The normed states fp32 [len(ids), hidden] after every token, in a model without a language head:
        what its embeddings are made of. `chunk` and errors as for `logits`."""
        self._checks.require_headless()
        return self._results(ids, self.config.hidden, chunk)

    def require_head(self) -> None:
        """UsageError where the model has no language head."""
        self._checks.require_head()

    def _results(self, ids: Sequence[int], width: int, chunk: int | None) -> Float32:
        """What a step gives back after every token, fp32 [len(ids), width]: rows of one text alone."""
        tokens = self._checks.tokens(ids)
        if chunk is not None and chunk < 1:
            raise UsageError(f"a chunk of {chunk} rows, expected at least 1")
        executor = self._loaded.prefill
        rows = min(chunk or executor.max_rows, executor.max_rows)
        results = np.empty((len(tokens), width), np.float32)
        sequence = self._cache.open()
        try:
            with self._alone():
                sequence.reserve(len(tokens), rows)
            for first in range(0, len(tokens), rows):
                part = tokens[first : first + rows]
                with self._alone():
                    self._require_whole()
                    sequence.reserve(len(part))
                    if self._reading is not None:  # it has this executor
                        self._reading[1].exception()
                    sequence.write_table(executor.tables[:, 0])
                    executor.place(0, 0, part, first)
                    executor.wanted[: len(part)] = range(len(part))
                    executor.step(len(part), results=results[first : first + len(part)])
                    for other in self._scheduler.running:
                        other.moved |= other.slot == 0
                    sequence.advance(len(part))
                if isinstance(self._npu, NpuUse):
                    self._npu.log_failure()
        finally:
            with self._alone():
                sequence.close()
        return results

    def lengthen(self, tokens: int) -> None:
        """Makes the past of every answer that runs `tokens` long by copies of its keys and values: for
        measurements, where a past must be long but not meaningful. Raises CacheFullError."""
        with self._alone():
            for sequence in self._scheduler.running:
                if sequence.decoding:
                    sequence.lengthen(tokens)
