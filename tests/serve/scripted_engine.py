"""A scripted engine with the interface that the service needs: steps, plain requests, plain outputs.

Its tokenizer is one token a byte (256 is the beginning of text, 257 its end), so every expected answer of a
test can be read off the script.
"""

import json
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers

from rockledge.board.levers import Setting
from rockledge.errors import RockledgeError, UsageError
from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.histogram import Histogram
from rockledge.runtime.offload.status import NpuStatus
from rockledge.runtime.piece import Piece, RequestStats, Score
from rockledge.runtime.request import EngineStats, Output, Request
from rockledge.runtime.sampling import TokenLogprob
from rockledge.runtime.streaming.status import StreamStats

BOS, EOS, VOCAB = 256, 257, 258


def byte_tokenizer(*more: str) -> Tokenizer:
    """A real tokenizer whose token i is byte i; `more` special tokens follow the end of text."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable} | {b: chr(0x100 + i) for i, b in enumerate(others)}
    rules = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={character: byte for byte, character in characters.items()}, merges=[])
    )
    rules.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rules.decoder = tokenizers.decoders.ByteLevel()
    rules.add_special_tokens(["<s>", "</s>", *more])
    rules.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", BOS)])
    config = {"bos_token": "<s>"}
    files = {"tokenizer.json": rules.to_str(), "tokenizer_config.json": json.dumps(config)}
    return Tokenizer.from_files({name: text.encode() for name, text in files.items()})


TOKENIZER = byte_tokenizer()


def scripted_state(ids: Sequence[int]) -> tuple[float, ...]:
    """What a text ends with: how many tokens it has, the first and the last of them, and their sum."""
    return (float(len(ids)), float(ids[0]), float(ids[-1]), float(sum(ids)))


class PlainTemplate:
    """`role: content` lines; refuses a conversation that starts with the assistant."""

    sources = ()
    takes_tools = False
    takes_documents = False

    def variables(self) -> set[str]:
        return set()

    def render(self, messages: Sequence[dict[str, Any]], switches: Any = None, **_: Any) -> str:
        if messages[0]["role"] == "assistant":
            raise UsageError("the chat template refuses these messages: the assistant cannot begin")
        lines = [f"{m['role']}: {m.get('reasoning_content', '')}{m['content']}\n" for m in messages]
        return "".join(lines) + "".join(map(str, (switches or {}).values())) + "assistant: "


@dataclass
class _Running:
    request: Request
    arrived: float
    done: int = 0


class ScriptedEngine:
    """Answers every request with `script` and then the end of text; records what it was asked.

    A step draws one token for each of the first `parallel` requests. Token i has log probability -i (-0.5 as
    a prompt token); with a seed, `seed` more. The alternatives are the token itself and "~". `pace` seconds
    pass in each step.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to the first script, with nothing recorded."""
        self.script = "Hello, world"
        self.pace = 0.0
        self.parallel = 8
        self.cached = 0
        self.prefill_seconds = self.decode_seconds = 0.0
        self.fail_after: int | None = None
        self.failure: Exception | None = None
        self.cancel_fails = False
        self.refuses: RockledgeError | None = None
        self.npu: NpuStatus | None = NpuStatus("off", "it was not asked for")
        self.streaming: StreamStats | None = None
        self.times: dict[str, Histogram] = {}
        self.requests: list[Request] = []
        self.adjusted: list[Setting] = []
        self.cancelled: list[str] = []
        self.open: list[_Running] = []
        self.most_active = 0
        self.produced = 0
        self.started = threading.Event()

    @property
    def idle(self) -> bool:
        return not self.open

    def waiting(self) -> Collection[str]:
        return [running.request.id for running in self.open[self.parallel :]]

    def adjust(self, setting: Setting) -> None:
        self.adjusted.append(setting)

    def submit(self, request: Request) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.requests.append(request)
        self.open.append(_Running(request, time.monotonic()))
        self.started.set()

    def cancel(self, request: str) -> None:
        if self.cancel_fails:
            raise RuntimeError("the pages are lost")
        self.cancelled += [running.request.id for running in self.open if running.request.id == request]
        self.open = [running for running in self.open if running.request.id != request]

    def stats(self) -> EngineStats:
        running = min(len(self.open), self.parallel)
        return EngineStats(
            running=running,
            waiting=len(self.open) - running,
            answer_tokens=self.produced,
            npu=self.npu,
            streaming=self.streaming,
            **self.times,
        )

    def step(self) -> list[Output]:
        time.sleep(self.pace)
        if self.failure is not None:
            raise self.failure
        active = self.open[: self.parallel]
        self.most_active = max(len(active), self.most_active)
        outputs = [output for running in active if (output := self._advance(running)) is not None]
        ended = {output.request for output in outputs if output.last}
        self.open = [running for running in self.open if running.request.id not in ended]
        return outputs

    def _advance(self, running: _Running) -> Output | None:
        request = running.request
        stats = RequestStats(
            prefill_tokens=len(request.prompt),
            prefill_seconds=self.prefill_seconds,
            decode_seconds=self.decode_seconds,
            cached_tokens=self.cached,
        )
        if request.kind == "score":
            ids, top = request.prompt[1:], request.logprobs or 0
            scores = (Score(t, -0.5, (TokenLogprob(t, -0.5), TokenLogprob(126, -9.0))[:top]) for t in ids)
            return Output(request.id, scores=tuple(scores), stats=stats, last=True)
        if request.kind == "embed":
            return Output(request.id, embedding=scripted_state(request.prompt), stats=stats, last=True)
        if running.done == self.fail_after:
            raise RuntimeError("the script says so")
        if request.deadline_s is not None and time.monotonic() - running.arrived > request.deadline_s:
            return Output(request.id, self._piece(request, "", (), "deadline"), stats=stats, last=True)
        text = self.script.encode()
        if running.done < min(request.max_tokens, len(text)):
            token = text[running.done]
            running.done += 1
            self.produced += 1
            return Output(request.id, self._piece(request, chr(token), (token,), None, running.done - 1))
        finish = "stop" if running.done < request.max_tokens else "length"
        return Output(request.id, self._piece(request, "", (), finish), stats=stats, last=True)

    def _piece(
        self, request: Request, text: str, ids: tuple[int, ...], finish: Any, place: float = 0.0
    ) -> Piece:
        if request.logprobs is None:
            return Piece(text, ids, None, None, finish)
        logprob = -place + (request.sampling.seed or 0)
        pairs = ([TokenLogprob(i, -place), TokenLogprob(ord("~"), -9.0)] for i in ids)
        tops = tuple(tuple(pair[: request.logprobs]) for pair in pairs)
        return Piece(text, ids, tuple(logprob for _ in ids), tops, finish)
