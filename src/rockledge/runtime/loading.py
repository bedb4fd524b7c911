"""Everything an engine needs of an artifact: its programs, the memory they take, and the NPU.

With an NPU two steps of one program run at once, over the same pages: answers are written on the CPU while a
part of a prompt, which mostly waits for the NPU, is in progress.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rockledge.artifact import Artifact, open_artifact
from rockledge.board.memory import DECODE_ROWS, PAGE_TOKENS, cache_bytes
from rockledge.errors import NpuError, UsageError
from rockledge.model.block import decoder
from rockledge.model.chat import ChatTemplate
from rockledge.model.source import source_name
from rockledge.runtime.cores import default_cores, started_on
from rockledge.runtime.executor import Executor
from rockledge.runtime.footprint import (
    DEFAULT_CONTEXT,
    STEP_TOKENS,
    Demand,
    Footprint,
    choose_footprint,
    whole_bytes,
)
from rockledge.runtime.offload.choose import beside_streaming, choose_npu, unused
from rockledge.runtime.offload.linears import linears_of
from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.offload.use import NpuUnusedError, NpuUse
from rockledge.runtime.program import build_program
from rockledge.runtime.streaming.fit import Fit, least_ring
from rockledge.runtime.streaming.stream import ReadAt
from rockledge.runtime.streaming.streamed import Streamed, streamed
from rockledge.units import show_size

CACHE_FORMAT = 2
"""Rises when a page of the cache holds other bytes for the same tokens."""

MakeExecutor = Callable[[int, Executor | None], Executor]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """An artifact ready to run. `prefill` and `decode` may be the same executor; `root` stands for the model
    and the bytes of its cache pages."""

    artifact: Artifact
    chat: ChatTemplate | None
    prefill: Executor
    decode: Executor
    footprint: Footprint
    npu: NpuUse | NpuStatus
    root: bytes

    def close(self) -> None:
        """Frees the native programs and the NPU. Closing twice is allowed."""
        if isinstance(self.npu, NpuUse):
            self.npu.close()
        self.prefill.close()
        self.decode.close()


@dataclass(frozen=True)
class Prepared:
    """An artifact that was opened and planned; nothing is taken for it yet. `demand` says what its engine
    takes with `threads` threads. `streamed`: that within `budget` bytes it has to read weights from the disk
    in every step."""

    artifact: Artifact
    demand: Demand
    threads: int
    budget: int | None = None
    streamed: Streamed | None = None

    def footprint(self, context: int | None, memory: int | None) -> Footprint:
        """What is chosen within `memory` bytes and the budget; errors are those of `choose_footprint`."""
        chosen = choose_footprint(self.demand, context, self.limit(memory))
        if self.streamed is None:
            return chosen
        more = self.fit(self.streamed, chosen, memory).bytes + self.streamed.always - self.demand.weights
        return replace(chosen, bytes=chosen.bytes + more)

    def fit(self, weights: Streamed, chosen: Footprint, memory: int | None) -> Fit:
        """Which of the weights stay in memory, beside what a footprint of these sizes takes besides."""
        limit = self.limit(memory)
        assert limit is not None
        others = self.demand.total(chosen.step_tokens, chosen.context) - self.demand.weights
        return weights.fit(limit - others)

    def limit(self, memory: int | None) -> int | None:
        """The smaller of `memory` and the budget."""
        return min((limit for limit in (memory, self.budget) if limit is not None), default=None)


def prepare(
    path: Path,
    threads: int | None,
    sequences: int,
    *,
    ctx: int | None = None,
    budget: int | None = None,
    memory: int | None = None,
) -> Prepared:
    """Opens the artifact at `path` and plans its program; arguments and errors are those of `Engine.load`."""
    bound = "--memory-budget"
    if budget is not None and memory is not None and memory < budget:
        budget, bound = memory, "--memory"
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; give at least 1")
    artifact = open_artifact(path)
    if budget is not None:
        artifact.read_sparsely()
    artifact.check_ends()
    plan = build_program(artifact)
    chosen = len(default_cores()) if threads is None else threads
    demand = Demand(
        weights=artifact.tensor_bytes,
        arena=lambda rows, pages: plan.memory(rows, pages * PAGE_TOKENS, chosen).working,
        cache=lambda rows, pages: cache_bytes(artifact.config, pages * PAGE_TOKENS, rows, sequences),
        page_tokens=PAGE_TOKENS,
        longest=artifact.config.context,
    )
    if budget is None:
        return Prepared(artifact, demand, chosen)
    wanted = min(demand.longest, DEFAULT_CONTEXT if ctx is None else ctx)
    if demand.total(STEP_TOKENS[-1], wanted) <= budget:
        return Prepared(artifact, demand, chosen, budget)
    weights = streamed(artifact, plan, chosen)
    least = replace(
        demand,
        weights=weights.least,
        limit=bound,
        held="the ring, and what is always in memory",
        streamed=sum(weights.sizes) - least_ring(weights.sizes),
    )
    return Prepared(artifact, least, chosen, budget, weights)


def load_artifact(
    path: Path,
    *,
    threads: int | None,
    ctx: int | None,
    memory: int | None,
    memory_budget: int | None,
    kernel: str,
    npu: str,
    npu_rows: int | None,
    npu_attention_from: int | None = None,
    sequences: int,
    chat_template: str | None,
    chat_template_kwargs: Mapping[str, Any],
    read: ReadAt | None = None,
) -> Loaded:
    """Maps the artifact at `path` and prepares its programs; arguments and errors are those of
    `Engine.load`. `read`: in place of the file's own, for weights that are streamed."""
    memory, memory_budget = whole_bytes("memory", memory), whole_bytes("memory_budget", memory_budget)
    prepared = prepare(path, threads, sequences, ctx=ctx, budget=memory_budget, memory=memory)
    artifact, demand, chosen = prepared.artifact, prepared.demand, prepared.threads
    chat = chosen_chat(artifact, chat_template, chat_template_kwargs)
    cores = default_cores()
    footprint = prepared.footprint(ctx, memory)
    # Some rotary embeddings depend on the longest sequence; the program's size does not.
    plan = build_program(artifact, footprint.context)
    ropes = [layer.attends.rope for layer in decoder(artifact.config).layers]
    stretched = any(rope is not None and rope.stretched(footprint.context) for rope in ropes)
    if stretched:
        log.info(
            "context: %d tokens are more than the model's original %d, so its rotary embedding is the "
            "one for long texts, which short ones have too",
            footprint.context,
            artifact.config.rope_original,
        )

    weights = prepared.streamed
    if weights is not None:
        weights = streamed(artifact, plan, chosen)
        plan = weights.held()

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

    used: NpuUse | NpuStatus
    if weights is None:
        used = choose_npu(
            npu,
            linears_of(plan),
            artifact.config,
            context=footprint.context,
            weights=demand.weights,
            others=with_both,
            memory=prepared.limit(memory),
            from_rows=npu_rows,
            attention_from=npu_attention_from,
        )
    else:
        used = beside_streaming(npu)
    executors, used = _executors(executor, footprint.step_tokens, used, npu)
    if weights is not None:
        try:
            _stream(executors[0], weights, prepared.fit(weights, footprint, memory), read)
        except BaseException:
            executors[0].close()
            raise
    if isinstance(used, NpuUse):
        rows = used.plan.steps[-1]
        footprint = replace(footprint, step_tokens=rows, bytes=with_both(rows) + used.bytes)
    log.info(
        "%s: kernel %s (%s), %d thread%s (%s)",
        source_name(path),
        executors[0].kernel,
        "best this processor supports" if kernel == "auto" else "requested",
        chosen,
        "s" * (chosen != 1),
        f"one for each fast core: {cores}" if threads is None else "requested",
    )
    _log_memory(demand, footprint, prepared.limit(memory), used, executors[0])
    root = _root(artifact, footprint.context if stretched else 0)
    return Loaded(artifact, chat, *executors, footprint, used, root)


def _root(artifact: Artifact, context: int) -> bytes:
    """What the name of every cached page begins with: 16 bytes. `context` where keys depend on it."""
    parts = f"{CACHE_FORMAT} {PAGE_TOKENS} {context} {artifact.digest}"
    return hashlib.blake2b(parts.encode(), digest_size=16).digest()


def chosen_chat(artifact: Artifact, template: str | None, switches: Mapping[str, Any]) -> ChatTemplate | None:
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
    prefill = executor(npu.plan.steps[-1], None)
    try:
        prefill.use_npu(npu)
        decode = executor(DECODE_ROWS, prefill)
    except BaseException:
        prefill.close()
        raise
    return prefill, decode


def _stream(executor: Executor, weights: Streamed, chosen: Fit, read: ReadAt | None) -> None:
    """From now on the executor reads its weights from the file, of which nothing is mapped any more."""
    artifact = weights.artifact
    file = artifact.unmapped_file()
    try:
        artifact.forget()
        file.forget()
        executor.stream_weights(weights.pieces, chosen, file, int(artifact.mapped.ctypes.data), read)
    except BaseException:
        file.close()
        raise
    _log_streaming(file.buffered_because, executor)


def _log_streaming(buffered_because: str | None, executor: Executor) -> None:
    assert executor.weights is not None
    stats = executor.weights.stats
    how = "direct I/O" if buffered_because is None else f"buffered reads, for {buffered_because}"
    log.info(
        "weights: %s of them stay in memory, spread over the layers; %s are read from the disk in every step "
        "(%s, a ring of %s)",
        show_size(stats.kept),
        show_size(stats.streamed),
        how,
        show_size(stats.ring),
    )
    if buffered_because is not None:
        log.warning(
            "direct I/O is refused here (%s), so weights are read through the page cache and dropped again",
            buffered_because,
        )


def _log_memory(
    demand: Demand,
    chosen: Footprint,
    memory: int | None,
    npu: NpuUse | NpuStatus,
    executor: Executor,
) -> None:
    cache = demand.cache(chosen.step_tokens, demand.pages(chosen.context))
    buffers = npu.bytes if isinstance(npu, NpuUse) else 0
    others = demand.total(chosen.step_tokens, chosen.context) - demand.weights
    weights = demand.weights if executor.weights is None else chosen.bytes - others
    log.info(
        "memory: %.1f MB weights, %.1f MB arena for steps of %d tokens, %.1f MB cache for %d tokens%s%s",
        weights / 1e6,
        (chosen.bytes - weights - cache - buffers) / 1e6,
        chosen.step_tokens,
        cache / 1e6,
        chosen.context,
        f", {buffers / 1e6:.1f} MB for the NPU" if buffers else "",
        "" if memory is None else f", of {memory / 1e6:.1f} MB allowed",
    )
    if isinstance(npu, NpuUse):
        log.info("%s", npu.describe())
