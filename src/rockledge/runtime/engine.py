"""The engine: one artifact loaded, and its operations token by token.

Tokens in, pieces of text, scores, logits or embeddings out. Chat templates and HTTP are the callers'
business; the work of a step is the native core's. Requests may run from several threads: steps take turns,
pages are shared.
With an NPU two steps of one program run at once, over the same pages: the decode step of other requests on
the CPU, while a prefill step, which mostly waits for the NPU, is in progress.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.artifact import Artifact, open_artifact
from rockledge.artifact.background import BackgroundCheck
from rockledge.board.memory import DECODE_ROWS, PAGE_TOKENS, SEQUENCES, cache_bytes, kv_bytes
from rockledge.errors import ContextError, NpuError, UsageError
from rockledge.model.block import decoder
from rockledge.model.chat import ChatTemplate
from rockledge.model.config import ModelConfig
from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.answer import Answer
from rockledge.runtime.batch import Batch
from rockledge.runtime.cores import default_cores, started_on
from rockledge.runtime.executor import Executor
from rockledge.runtime.footprint import Demand, Footprint, choose_footprint
from rockledge.runtime.kv_cache import CachedSequence, PageCache
from rockledge.runtime.offload.choose import choose_npu, unused
from rockledge.runtime.offload.linears import linears_of
from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.offload.use import NpuUnusedError, NpuUse
from rockledge.runtime.piece import Meter, Piece, RequestStats, Score
from rockledge.runtime.program import build_program
from rockledge.runtime.sampling import Sampling, log_probabilities, most_probable

SCORE_BYTES = 32 << 20
"""Logits held at a time while scoring: with a large vocabulary fewer rows a step, never the whole text."""

GREEDY = Sampling()

# What shorter embeddings are divided by, as in torch.nn.functional.normalize.
_LEAST_LENGTH = np.float32(1e-12)

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

MakeExecutor = Callable[[int, Executor | None], Executor]

log = logging.getLogger(__name__)


def _never() -> bool:
    return False


class Engine:
    """A loaded artifact. `context` is the most tokens a sequence may have, prompt and answer together;
    `footprint` says what was chosen for the memory, `stats` what the last request took."""

    def __init__(
        self,
        artifact: Artifact,
        name: str,
        executors: tuple[Executor, Executor],
        cache: PageCache,
        footprint: Footprint,
        npu: NpuUse | NpuStatus,
        chat: ChatTemplate | None,
    ) -> None:
        """`executors`: the one for prefill and the one for decode; they may be the same."""
        self.artifact = artifact
        self.name = name
        self.footprint = footprint
        self.context = footprint.context
        self.config: ModelConfig = artifact.config
        self.tokenizer = Tokenizer.from_files(artifact.files)
        self.chat = chat
        self.stats = RequestStats()
        self._prefill, self._decode = executors
        self._cache = cache
        self._npu = npu
        self._eos = frozenset(self.config.eos)
        self._check: BackgroundCheck | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        ctx: int | None = None,
        memory: int | None = None,
        kernel: str = "auto",
        npu: str = "auto",
        npu_rows: int | None = None,
        sequences: int = SEQUENCES,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> "Engine":
        """Maps the artifact at `path` and prepares its program.

        `threads`: None for one per fast core. `ctx`: tokens of context, None for min(the model's, 4096, what
        `memory` allows). `memory`: bytes that weights, arena, cache and NPU buffers may take together.
        `kernel`: a name of `choices.KERNELS`. `npu`: "auto" reads prompts on the NPU where
        one can be used, "off" leaves it alone, "require" fails without it. `npu_rows`: prompts go there in
        steps of so many tokens or more, None for as many as the board's facts say. `sequences`: how many that
        are longer than a window have room at a time in layers that have one. `chat_template`: a Jinja
        template in place of the model's own; `chat_template_kwargs`: variables for it, such as
        `enable_thinking`.
        Raises ArtifactError, UsageError, BudgetError (naming what fits), NativeError and NpuError.
        """
        path = Path(path)
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}; give at least 1")
        artifact = open_artifact(path)
        artifact.check_ends()
        chat = _chat(artifact, chat_template, chat_template_kwargs or {})
        plan = build_program(artifact)
        cores = default_cores()
        chosen = len(cores) if threads is None else threads
        demand = Demand(
            weights=artifact.tensor_bytes,
            arena=lambda rows, pages: plan.memory(rows, pages * PAGE_TOKENS, chosen).working,
            cache=lambda rows, pages: cache_bytes(artifact.config, pages * PAGE_TOKENS, rows, sequences),
            page_tokens=PAGE_TOKENS,
            longest=artifact.config.context,
        )
        footprint = choose_footprint(demand, ctx, memory)
        # Some rotary embeddings depend on the longest sequence; the program's size does not.
        plan = build_program(artifact, footprint.context)
        ropes = (layer.attends.rope for layer in decoder(artifact.config).layers)
        if any(rope is not None and rope.stretched(footprint.context) for rope in ropes):
            log.info(
                "context: %d tokens are more than the model's original %d, so its rotary embedding is the "
                "one for long texts, which short ones have too",
                footprint.context,
                artifact.config.rope_original,
            )

        def executor(rows: int, beside: Executor | None = None) -> Executor:
            # Left to itself the system may put a thread of the pool on a slow core, and all wait for it.
            with started_on(cores) if threads is None else nullcontext():
                if beside is not None:
                    return beside.beside(rows)
                return Executor(
                    plan,
                    max_rows=rows,
                    context=footprint.context,
                    pools=plan.pools(footprint.context, rows, sequences),
                    threads=chosen,
                    kernel=kernel,
                )

        def with_both(rows: int) -> int:
            return demand.total(rows, footprint.context) + demand.arena(
                DECODE_ROWS, demand.pages(footprint.context)
            )

        used = choose_npu(
            npu,
            linears_of(plan),
            artifact.config,
            context=footprint.context,
            weights=demand.weights,
            others=with_both,
            memory=memory,
            from_rows=npu_rows,
        )
        executors, used = _executors(executor, footprint.step_tokens, used, npu)
        if isinstance(used, NpuUse):
            rows = used.plan.steps[-1]
            footprint = replace(footprint, step_tokens=rows, bytes=with_both(rows) + used.plan.bytes)
        log.info(
            "%s: kernel %s (%s), %d thread%s (%s)",
            path.name,
            executors[0].kernel,
            "best this processor supports" if kernel == "auto" else "requested",
            chosen,
            "s" * (chosen != 1),
            f"one for each fast core: {cores}" if threads is None else "requested",
        )
        _log_memory(demand, footprint, memory, used)
        pools = [(pool.window, pool.pages) for pool in executors[0].pools]
        cache = PageCache(pools, PAGE_TOKENS, executors[0].copy_page)
        return cls(artifact, path.resolve().name, executors, cache, footprint, used, chat)

    @contextmanager
    def checked(self) -> Iterator[BackgroundCheck]:
        """Reads every byte of the artifact in the background meanwhile: once damage is found, `generate` and
        `logits` raise ArtifactError, at the latest the end of the block does. A block that fails by itself
        does not wait."""
        check = self._check = BackgroundCheck(self.artifact.verify)
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
        """Frees the native programs and the NPU. Closing twice is allowed; only `npu` and `stats` may be
        used afterwards."""
        with self._prefill.lock:
            if isinstance(self._npu, NpuUse):
                self._npu.close()
            self._prefill.close()
        with self._decode.lock:
            self._decode.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def kernel(self) -> str:
        """Name of the kernel in use."""
        return self._prefill.kernel

    @property
    def threads(self) -> int:
        """Threads that work on a step."""
        return self._prefill.threads

    @property
    def native_bytes(self) -> int:
        """Bytes of arena and cache that the native core has taken, the NPU's buffers not among them."""
        return sum(executor.bytes for executor in {self._prefill, self._decode})

    @property
    def npu(self) -> NpuStatus:
        """Whether prefill runs on the NPU, why not, and its counters; also while requests run."""
        return self._npu.status() if isinstance(self._npu, NpuUse) else self._npu

    @property
    def step_bytes(self) -> int:
        """Bytes of weights a step with logits reads, however many rows it has: codes, indices, scales."""
        return self._prefill.step_bytes

    def time_operations(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Names of the native operations in order, and the nanoseconds of each, which all steps from now on
        add to: where the time goes. With an NPU in use only prefill steps do."""
        return self._prefill.time_operations()

    def cache_bytes_read(self, past: int) -> int:
        """Bytes of keys and values that a step reads in a sequence of `past` tokens."""
        return kv_bytes(self.config, past)

    @property
    def free_pages(self) -> int:
        """Cache pages that no request holds."""
        return self._cache.free_pages

    @property
    def pages(self) -> int:
        """Cache pages in all."""
        return self._cache.pages

    def generate(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        ignore_eos: bool = False,
        cancelled: Callable[[], bool] = _never,
    ) -> Iterator[Piece]:
        """Continues `prompt` (token ids), yielding text as soon as it is certain.

        `logprobs`: how many alternatives to report beside each token (0: only its own), None for no scores.
        `cancelled` is called before every step; once true, the pieces just end. The same seed gives the same
        text whatever else runs. Raises ContextError or UsageError here, before any work; CacheFullError with
        the first piece when other requests hold the pages.
        """
        self.require_head()
        ids = self._checked(prompt)
        if max_tokens < 0:
            raise UsageError(f"max_tokens is {max_tokens}; give 0 or more")
        if logprobs is not None and logprobs < 0:
            raise UsageError(f"logprobs is {logprobs} alternatives; give 0 or more, or None")
        # The last token drawn need not fit into the cache.
        room = min(max_tokens, self.context - len(ids) + 1)
        return self._pieces(ids, room, sampling, stop, logprobs, ignore_eos, cancelled)

    def _pieces(
        self,
        prompt: Int32,
        room: int,
        sampling: Sampling,
        stop: Sequence[str],
        logprobs: int | None,
        ignore_eos: bool,
        cancelled: Callable[[], bool],
    ) -> Iterator[Piece]:
        answer = Answer(self.tokenizer, stop, logprobs)
        meter = Meter()
        self.stats = meter.stats()
        if room == 0:
            yield answer.last("length")
            return
        with self._cached(len(prompt)) as sequence:
            step = self._decode.single_step(sampling)
            for rows in self._steps(prompt):
                if cancelled():
                    return
                final = sequence.length + len(rows) == len(prompt)
                self._run(rows, sequence, step.logits[None] if final else None)
                self.stats = meter.prefilled(len(rows))
            step.write_table(sequence)
            for drawn in range(1, room + 1):
                token = step.draw(drawn)
                ended = token in self._eos and not ignore_eos
                piece = answer.last("stop") if ended else answer.push(token, step.logits)
                if piece is not None:
                    self.stats = meter.pause()
                    yield piece
                    if piece.finish is not None:
                        return
                    meter.resume()
                if cancelled():
                    self.stats = meter.pause()
                    return
                if drawn < room:
                    self._require_whole()
                    if sequence.reserve(1):
                        step.write_table(sequence)
                    with self._decode.lock:
                        step.run(token, sequence.length)
                    sequence.advance(1)
                    meter.decoded()
            self.stats = meter.pause()
            yield answer.last("length")

    def batch(self, prompts: Sequence[Sequence[int]], *, sampling: Sampling = GREEDY) -> Batch:
        """Runs prefill of the prompts (token ids) and holds them as sequences that continue in lockstep.

        Use it as a context manager. Raises ContextError or UsageError for a prompt that is not valid, and
        CacheFullError when all of them together need more than the cache has.
        """
        self.require_head()
        most = self._prefill.max_rows
        if not 1 <= len(prompts) <= most:
            raise UsageError(f"a batch of {len(prompts)} sequences, expected 1 to {most}")
        checked = [self._checked(prompt) for prompt in prompts]
        steps = self._decode if len(prompts) <= self._decode.max_rows else self._prefill
        return Batch(self._cache, self._read, steps, self.context, checked, sampling)

    @contextmanager
    def _cached(self, tokens: int) -> Iterator[CachedSequence]:
        """A new sequence with room for `tokens`; its pages are freed at the end in any case."""
        sequence = self._cache.open()
        try:
            sequence.reserve(tokens, self._prefill.max_rows)
            yield sequence
        finally:
            sequence.close()

    def _read(self, prompt: Int32, sequence: CachedSequence, logits: Float32 | None) -> None:
        """Prefill of a whole prompt, in as few steps as possible. CacheFullError before the first."""
        sequence.reserve(len(prompt), self._prefill.max_rows)
        for part in self._steps(prompt):
            final = sequence.length + len(part) == len(prompt)
            self._run(part, sequence, logits if final else None)

    def _run(self, tokens: Int32, sequence: CachedSequence, logits: Float32 | None) -> None:
        sequence.reserve(len(tokens))  # nothing new, unless a fork shares what was reserved
        self._require_whole()
        with self._prefill.lock:
            self._prefill.run(tokens, sequence, logits)
        sequence.advance(len(tokens))
        if isinstance(self._npu, NpuUse):
            self._npu.log_failure()

    def _steps(self, prompt: Int32) -> Iterator[Int32]:
        """A prompt in steps: as large as possible, or as the NPU is fastest."""
        if isinstance(self._npu, NpuUse):
            first = 0
            for rows in self._npu.plan.chunks(len(prompt)):
                yield prompt[first : first + rows]
                first += rows
        else:
            yield from self._chunks(prompt, self._prefill.max_rows)

    @staticmethod
    def _chunks(tokens: Int32, rows: int) -> Iterator[Int32]:
        for first in range(0, len(tokens), rows):
            yield tokens[first : first + rows]

    def score(self, ids: Sequence[int], top: int = 0) -> list[Score]:
        """Log probability of every token of `ids` after the first, and the `top` most probable tokens there.

        Raises ContextError or UsageError.
        """
        self.require_head()
        tokens = self._checked(ids)
        rows = max(1, min(self._prefill.max_rows, SCORE_BYTES // (4 * self.config.vocab)))
        logits = np.empty((rows, self.config.vocab), np.float32)
        scores: list[Score] = []
        with self._cached(len(tokens) - 1) as sequence:
            for part in self._chunks(tokens[:-1], rows):
                following = tokens[sequence.length + 1 :]
                self._run(part, sequence, logits[: len(part)])
                for row, given in zip(logits[: len(part)], following, strict=False):
                    scored = log_probabilities(row)
                    scores.append(Score(int(given), float(scored[given]), most_probable(scored, top)))
        return scores

    def logits(self, ids: Sequence[int], *, chunk: int | None = None) -> Float32:
        """Logits fp32 [len(ids), vocab] after every token. `chunk`: rows a step, which changes no result.

        The answer takes 4 * len(ids) * vocab bytes and nothing else grows with the text. Raises ContextError
        or UsageError.
        """
        self.require_head()
        return self._results(ids, self.config.vocab, chunk)

    def states(self, ids: Sequence[int], *, chunk: int | None = None) -> Float32:
        """The normed states fp32 [len(ids), hidden] after every token, in a model without a language head:
        what its embeddings are made of. `chunk` and errors as for `logits`."""
        self._require_headless()
        return self._results(ids, self.config.hidden, chunk)

    def embed(self, ids: Sequence[int], *, dimensions: int | None = None) -> Float32:
        """The embedding of a text fp32 [hidden], of length 1: the normed state after its last token.

        `ids` are of the whole text, as `Tokenizer.encode_whole` gives them. `dimensions`: so many of the
        first numbers, brought back to length 1; for models that are trained to be cut like this. Raises
        ContextError, or UsageError, also where the model has a language head.
        """
        self._require_headless()
        size = self.config.hidden if dimensions is None else dimensions
        if not 1 <= size <= self.config.hidden:
            raise UsageError(f"an embedding of {size} dimensions, expected 1 to {self.config.hidden}")
        tokens, state = self._checked(ids), np.empty((1, self.config.hidden), np.float32)
        with self._cached(len(tokens)) as sequence:
            self._read(tokens, sequence, state)
        kept: Float32 = state[0, :size]
        return kept / max(np.linalg.norm(kept), _LEAST_LENGTH)

    def require_head(self) -> None:
        """UsageError where the model has no language head."""
        if self.config.headless:
            raise UsageError(
                f"{self.name} has no language head: it can neither generate nor score; ask it for embeddings"
            )

    def _require_headless(self) -> None:
        if not self.config.headless:
            raise UsageError(
                f"{self.name} has a language head and was not made for embeddings; use a model that "
                "was, such as Qwen3-Embedding"
            )

    def _results(self, ids: Sequence[int], width: int, chunk: int | None) -> Float32:
        """What a step gives back after every token, fp32 [len(ids), width]."""
        tokens = self._checked(ids)
        if chunk is not None and chunk < 1:
            raise UsageError(f"a chunk of {chunk} rows, expected at least 1")
        rows = min(chunk or self._prefill.max_rows, self._prefill.max_rows)
        results = np.empty((len(tokens), width), np.float32)
        with self._cached(len(tokens)) as sequence:
            for part in self._chunks(tokens, rows):
                self._run(part, sequence, results[sequence.length :][: len(part)])
        return results

    def _checked(self, ids: Sequence[int]) -> Int32:
        """`ids` as an array, once they are known to be tokens of this model that fit into the context."""
        if len(ids) == 0:
            raise UsageError("the prompt has no tokens; give at least one")
        if len(ids) > self.context:
            raise ContextError(
                f"the prompt has {len(ids)} tokens, expected at most {self.context}; shorten the prompt or "
                f"load with a larger context (this model takes up to {self.config.context})"
            )
        tokens = np.asarray(ids, dtype=np.int64)
        wrong = tokens[(tokens < 0) | (tokens >= self.config.vocab)]
        if wrong.size:
            raise UsageError(
                f"token id {wrong[0]} is outside this model's vocabulary (0 to {self.config.vocab - 1})"
            )
        return tokens.astype(np.int32)


def _chat(artifact: Artifact, template: str | None, switches: Mapping[str, Any]) -> ChatTemplate | None:
    """The template of conversations; UsageError for switches without one, or that it does not read."""
    if template is None:
        chat = ChatTemplate.from_files(artifact.files)
    else:
        chat = ChatTemplate.replacing(template, artifact.files)
    if not switches:
        return chat
    if chat is None:
        raise UsageError(
            f"{artifact.path} has no chat template, so nothing reads {min(switches)!r}; give a template too"
        )
    return chat.with_switches(switches)


def _executors(
    executor: MakeExecutor, rows: int, npu: NpuUse | NpuStatus, mode: str
) -> tuple[tuple[Executor, Executor], NpuUse | NpuStatus]:
    """The executors for prefill and decode, and the NPU after loading it: without one, or with one that
    fails, a single executor for steps of `rows` tokens does both. `executor` makes one for steps of so many
    tokens, over the cache of another if one is given."""
    if isinstance(npu, NpuUse):
        try:
            return _with_npu(executor, npu), npu
        except NpuError as error:
            npu.close()
            npu = unused(mode, NpuUnusedError(str(error), "unusable"))
        except BaseException:
            npu.close()
            raise
    return (executor(rows, None),) * 2, npu


def _with_npu(executor: MakeExecutor, npu: NpuUse) -> tuple[Executor, Executor]:
    largest = npu.plan.steps[-1]
    prefill = executor(largest, None)
    try:
        prefill.use_npu(npu)
        decode = executor(DECODE_ROWS, prefill)
    except BaseException:
        prefill.close()
        raise
    return prefill, decode


def _log_memory(demand: Demand, chosen: Footprint, memory: int | None, npu: NpuUse | NpuStatus) -> None:
    cache = demand.cache(chosen.step_tokens, demand.pages(chosen.context))
    buffers = npu.plan.bytes if isinstance(npu, NpuUse) else 0
    log.info(
        "memory: %.1f MB weights, %.1f MB arena for steps of %d tokens, %.1f MB cache for %d tokens%s%s",
        demand.weights / 1e6,
        (chosen.bytes - demand.weights - cache - buffers) / 1e6,
        chosen.step_tokens,
        cache / 1e6,
        chosen.context,
        f", {buffers / 1e6:.1f} MB for the NPU" if buffers else "",
        "" if memory is None else f", of {memory / 1e6:.1f} MB allowed",
    )
    if isinstance(npu, NpuUse):
        log.info("%s", npu.describe())
