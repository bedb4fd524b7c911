"""The requests that are open, and how their answers grow: what a step gave is taken over, tokens that were
drawn or that a grammar forces become text for the client, and the last output of each ends it."""

import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from rockledge.errors import NativeError, RockledgeError, UsageError
from rockledge.runtime.constraints.grammar import GrammarMatcher
from rockledge.runtime.drawing import Drawing
from rockledge.runtime.engine_times import EngineTimes
from rockledge.runtime.piece import Finish, Piece, Score
from rockledge.runtime.request import EngineStats, Failure, Output, failure_of
from rockledge.runtime.sampling import TokenLogprob
from rockledge.runtime.scheduler import Scheduler, Share
from rockledge.runtime.sequence import Sequence as Running
from rockledge.runtime.step import StepResult


class Answering:
    """Open requests by id, and the outputs of those that have no inbox. One that ends leaves the scheduler
    too. Whoever calls has the engine; any thread may call `find`, `end_soon` and `has_ended`."""

    def __init__(self, scheduler: Scheduler, eos: Collection[int]) -> None:
        """`eos`: tokens that end a text."""
        self._scheduler = scheduler
        self._eos = eos
        self._requests: dict[str, Running] = {}
        self._ending: dict[Running, None] = {}  # ended from outside, and perhaps not taken out yet
        self._outputs: list[Output] = []
        self._steps = self._read = self._found = self._drawn = self._taken = self._hits = 0
        self._times = EngineTimes()

    @property
    def idle(self) -> bool:
        """Whether no request is open and no output left."""
        return not self._requests and not self._outputs

    def open(self) -> list[Running]:
        """The open requests, oldest first."""
        return list(self._requests.values())

    def find(self, request: str) -> Running | None:
        """The open request of this id."""
        return self._requests.get(request)

    def end_soon(self, sequence: Running, how: Finish) -> None:
        """Ends a request from outside: it is taken out as soon as somebody has the engine."""
        sequence.ended = sequence.ended or how
        self._ending[sequence] = None

    def has_ended(self) -> bool:
        """Whether a request was ended from outside and could be taken out."""
        return any(not sequence.busy for sequence in list(self._ending))

    def begin(self, sequence: Running) -> None:
        """A request is open from now on."""
        self._requests[sequence.request.id] = sequence
        self._taken += 1

    def take_outputs(self) -> list[Output]:
        """What has come since the last call."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def stats(self, others: EngineStats) -> EngineStats:
        """`others` with what is counted here."""
        return replace(
            others,
            requests=self._taken,
            steps=self._steps,
            prompt_tokens=self._read,
            cached_tokens=self._found,
            answer_tokens=self._drawn,
            prefix_hits=self._hits,
            first_token=self._times.first_token.histogram(),
            token=self._times.token.histogram(),
            step=self._times.step.histogram(),
            step_sequences=self._times.sequences.histogram(),
        )

    def take(self, shares: Sequence[Share], done: StepResult) -> None:
        """Takes over what a step gave, sequence by sequence."""
        self._steps += 1
        self._times.ran(done.seconds, len(shares))
        for share in shares:
            sequence, decoding = share.sequence, share.sequence.decoding
            assert sequence.cached is not None
            sequence.cached.advance(share.rows)
            sequence.worked(share.rows, done.seconds, decoding)
            self._read += 0 if decoding else share.rows
        self._scheduler.served(shares)
        for share in shares:
            sequence = share.sequence
            for given in done.given.get(sequence, ()):
                if sequence.request.kind == "score":
                    sequence.scores.append(Score(given.token, given.logprob, given.top))
                    continue
                sequence.told += 1
                if self._tell(sequence, given.token, given.logprob, given.top):
                    break
            if sequence.mean is not None:
                sequence.mean.add(done.states[sequence])
            if not self._is_open(sequence) or sequence.pending > 0:
                continue
            if sequence.closing is not None:
                answer = sequence.answer
                self.end(sequence, None if answer is None else answer.last(sequence.closing))
            elif sequence.drawing is not None:
                self._draw(sequence, sequence.drawing)
            elif sequence in done.states:
                mean, (*_, last) = sequence.mean, done.states[sequence]
                state = last if mean is None else mean.value
                self.end(sequence, None, embedding=tuple(state.tolist()))
            else:
                self.end(sequence, None, scores=tuple(sequence.scores))

    def _draw(self, sequence: Running, drawing: Drawing) -> None:
        """The next token of an answer, and the text that became certain by it."""
        assert sequence.answer is not None
        matcher = sequence.matcher
        try:
            if matcher is not None:
                matcher.require_sound()
            token = drawing.take()
        except (NativeError, UsageError) as error:
            self.end(sequence, None, failure=failure_of(error))
            return
        self._drawn += 1
        now = time.monotonic()
        self._times.drawn(sequence.arrived, sequence.drawn_at, now)
        sequence.drawn_at = now
        stops = token in sequence.request.sampling.stop_ids
        if stops or (token in self._eos and not sequence.request.ignore_eos):
            self.end(sequence, sequence.answer.last("stop"))
            return
        if self._tell(sequence, token, drawing.logprob, drawing.top):
            return
        if matcher is not None:
            sequence.append(token)
            self._follow(sequence, matcher, token)
        elif drawing.drawn == sequence.room:
            self.end(sequence, sequence.answer.last("length"))
        else:
            sequence.append(token)

    def _tell(
        self, sequence: Running, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()
    ) -> bool:
        """A token of an answer for its client; whether the answer has ended by it."""
        assert sequence.answer is not None
        piece = sequence.answer.push(token, logprob, top)
        if piece is not None and piece.finish is not None:
            self.end(sequence, piece)
            return True
        if piece is not None:
            self._put(sequence, Output(sequence.request.id, piece))
        return False

    def constrain(self, sequence: Running, compiled: "Future[GrammarMatcher]") -> None:
        """The grammar of a sequence is compiled; what its answer begins with in any case is known."""
        if not self._is_open(sequence):
            return
        try:
            matcher = sequence.matcher = compiled.result()
        except RockledgeError as error:
            self.end(sequence, None, failure=failure_of(error))
            return
        assert sequence.drawing is not None
        sequence.drawing.allow(matcher.mask)
        self._follow(sequence, matcher, None)

    def _follow(self, sequence: Running, matcher: GrammarMatcher, token: int | None) -> None:
        """Takes `token` into the grammar of an answer, and adds those that are the only ones to follow: they
        count as drawn, and where scores are asked for, steps to come give them."""
        drawing, answer = sequence.drawing, sequence.answer
        assert drawing is not None
        assert answer is not None
        scored = sequence.request.logprobs is not None
        try:
            if token is not None:
                matcher.accept(token)
            forced = matcher.take_forced(sequence.room - drawing.drawn)
        except UsageError as error:
            self.end(sequence, None, failure=failure_of(error))
            return
        for one in forced:
            drawing.add(one)
            self._drawn += 1
            sequence.append(one, told=not scored)
            if not scored and self._tell(sequence, one, 0.0):
                return
        if not matcher.complete and drawing.drawn < sequence.room:
            return
        finish: Finish = "stop" if matcher.complete else "length"
        if sequence.told == sequence.count:
            self.end(sequence, answer.last(finish))
        else:
            sequence.closing = finish

    def _is_open(self, sequence: Running) -> bool:
        return self._requests.get(sequence.request.id) is sequence

    def take_out_ended(self) -> None:
        """Ends what was ended from outside."""
        for sequence in list(self._ending):
            if self._is_open(sequence):
                self.take_out(sequence)
            else:  # it had ended by itself when somebody ended it
                del self._ending[sequence]

    def take_out(self, sequence: Running) -> None:
        """Ends a request from outside; one in a step that still runs, when that is over."""
        if sequence.busy or sequence.ended is None:
            return
        self._scheduler.remove(sequence)
        piece = None if sequence.answer is None else sequence.answer.last(sequence.ended)
        failure = None
        if piece is None and sequence.ended == "deadline":
            failure = Failure("deadline", "its deadline passed before it was done")
        self.end(sequence, piece, failure=failure, removed=True)

    def end(self, sequence: Running, piece: Piece | None, *, removed: bool = False, **more: Any) -> None:
        """A request is open no longer: its last output, with `piece` and `more`. `removed`: the scheduler no
        longer has it."""
        if not removed and (sequence.cached is not None or sequence in self._scheduler.waiting):
            self._scheduler.remove(sequence)
        del self._requests[sequence.request.id]
        self._ending.pop(sequence, None)
        found = sequence.stats.cached_tokens
        self._found += found
        self._hits += found > 0
        self._put(sequence, Output(sequence.request.id, piece, stats=sequence.stats, last=True, **more))

    def _put(self, sequence: Running, output: Output) -> None:
        if sequence.inbox is None:
            self._outputs.append(output)
        else:
            sequence.inbox.append(output)
