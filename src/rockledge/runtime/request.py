"""What is asked of an engine and what comes back: plain data that can cross a process boundary."""

from dataclasses import dataclass, field
from typing import Literal

from rockledge.errors import ArtifactError, ContextError, DiskError, RockledgeError, UsageError
from rockledge.runtime.constraints.constraint import Constraint
from rockledge.runtime.histogram import NONE, Histogram
from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.piece import Piece, RequestStats, Score
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.streaming.status import StreamStats

Kind = Literal["generate", "score", "embed"]
FailureKind = Literal["usage", "context", "deadline", "damaged", "disk", "failed"]


@dataclass(frozen=True)
class Request:
    """A continuation of `prompt` (token ids), the scores of its tokens, or its embedding.

    `logprobs`: how many alternatives to report beside each token (0: only its own), None for no scores;
    of "score" too. `shown`: special tokens that are part of the text. `client`: whose share of the machine it
    takes. `priority`: higher goes first. `deadline_s`: seconds from its arrival after which it
    ends, with what there is. `constraint`: what the answer has to look like; it ends when nothing may follow.
    """

    id: str
    prompt: tuple[int, ...]
    kind: Kind = "generate"
    max_tokens: int = 16
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    shown: tuple[int, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False
    client: str = ""
    priority: int = 0
    deadline_s: float | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True)
class Failure:
    """Why a request got no answer, or no more of it."""

    kind: FailureKind
    message: str


@dataclass(frozen=True)
class Output:
    """One thing that happened to a request; `last` says that nothing follows, `stats` comes with it."""

    request: str
    piece: Piece | None = None
    scores: tuple[Score, ...] = ()
    embedding: tuple[float, ...] = ()
    failure: Failure | None = None
    stats: RequestStats | None = None
    last: bool = False


@dataclass(frozen=True)
class EngineStats:
    """How an engine stands, and what it has done since it was loaded.

    Of those `running`, `decoding` write their answers. Pages are of the key/value cache; `free_pages` are
    those that no request holds, `cold_pages` of them keep prefixes. Tokens are those of prompts that were
    read, those found in the cache instead, and those drawn; `prefix_hits` are requests that have ended with
    some that were found. Histograms are those of `EngineTimes`. `streaming`: of weights that are read from
    the disk, None where they are in memory.
    """

    running: int = 0
    decoding: int = 0
    waiting: int = 0
    pages: int = 0
    free_pages: int = 0
    cold_pages: int = 0
    requests: int = 0
    steps: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    prefix_hits: int = 0
    first_token: Histogram = NONE
    token: Histogram = NONE
    step: Histogram = NONE
    step_sequences: Histogram = NONE
    streaming: StreamStats | None = None
    npu: NpuStatus | None = None


def failure_of(error: Exception) -> Failure:
    """The failure that stands for `error`; a sentence in any case."""
    kinds: tuple[tuple[type[Exception], FailureKind], ...] = (
        (ContextError, "context"),
        (UsageError, "usage"),
        (ArtifactError, "damaged"),
        (DiskError, "disk"),
    )
    found = [kind for type_, kind in kinds if isinstance(error, type_)]
    kind: FailureKind = found[0] if found else "failed"
    known = isinstance(error, RockledgeError)
    return Failure(kind, str(error) if known else f"unexpected failure ({type(error).__name__}: {error})")
