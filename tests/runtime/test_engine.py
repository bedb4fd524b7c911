"""Requests: what ends them, what they report, what they refuse, and that they give every page back."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from tests.runtime.artifacts import BOS, EOS, VARIANTS, VOCAB, write_artifact
from tests.runtime.scores import log_probabilities

from rockledge.errors import ArtifactError, BudgetError, ContextError, NativeError, UsageError
from rockledge.runtime.engine import Engine
from rockledge.runtime.piece import Piece
from rockledge.runtime.sampling import Sampling

ArtifactPath = Callable[[str], Path]
PROMPT = [BOS, 10, 200, 33, 44]
WARM = Sampling(temperature=1.0, seed=7)


def collect(pieces: Iterator[Piece]) -> tuple[str, list[int], str | None]:
    found = list(pieces)
    assert all(piece.finish is None for piece in found[:-1])
    ids = [token for piece in found for token in piece.ids]
    return "".join(piece.text for piece in found), ids, found[-1].finish if found else None


def test_greedy_takes_the_largest_logit(engine: Engine) -> None:
    text, ids, finish = collect(engine.generate(PROMPT, max_tokens=40, ignore_eos=True))
    assert (len(ids), finish) == (40, "length")
    logits = engine.logits(PROMPT + ids)
    assert ids == logits[len(PROMPT) - 1 : -1].argmax(axis=1).tolist()
    assert text == engine.tokenizer.decode(ids)


def test_logprobs_are_those_of_score(engine: Engine) -> None:
    pieces = list(engine.generate(PROMPT, max_tokens=20, sampling=WARM, logprobs=3, ignore_eos=True))
    ids = [token for piece in pieces for token in piece.ids]
    scores = engine.score(PROMPT + ids, top=3)
    assert [score.id for score in scores] == (PROMPT + ids)[1:]
    answered = scores[len(PROMPT) - 1 :]
    assert [p for piece in pieces for p in piece.logprobs] == [score.logprob for score in answered]
    assert [t for piece in pieces for t in piece.top] == [score.top for score in answered]
    expected = log_probabilities(engine.logits(PROMPT + ids))
    for row, score in zip(expected, scores, strict=False):
        assert score.logprob == pytest.approx(row[score.id], rel=1e-14)
        assert score.top[0].logprob == pytest.approx(row.max(), rel=1e-14)
        assert score.top[0].id == row.argmax()
        assert len(score.top) == 3


def test_logprobs_only_when_asked(engine: Engine) -> None:
    pieces = list(engine.generate(PROMPT, max_tokens=3))
    assert all(piece.logprobs is None and piece.top is None for piece in pieces)
    pieces = list(engine.generate(PROMPT, max_tokens=3, logprobs=0, ignore_eos=True))
    assert sum(len(piece.logprobs) for piece in pieces) == 3
    assert all(top == () for piece in pieces for top in piece.top)


def test_seeds_repeat_and_differ(engine: Engine) -> None:
    def ids(seed: int | None) -> list[int]:
        sampling = Sampling(temperature=1.5, seed=seed)
        return collect(engine.generate(PROMPT, max_tokens=30, sampling=sampling, ignore_eos=True))[1]

    assert ids(1) == ids(1)
    assert len({tuple(ids(seed)) for seed in (1, 2, 3, None, None)}) == 5


def test_every_end_of_text_id_ends_the_answer(engine: Engine, tmp_path: Path) -> None:
    _, ids, _ = collect(engine.generate(PROMPT, max_tokens=30, sampling=WARM, ignore_eos=True))
    place = next(i for i in range(5, 30) if ids[i] not in ids[:i])
    path = write_artifact(tmp_path / "model", replace(VARIANTS["rotated-tied"], eos=(EOS, ids[place])))
    with Engine.load(path, threads=1, ctx=200) as other:
        pieces = list(other.generate(PROMPT, max_tokens=30, sampling=WARM, logprobs=0))
        assert [token for piece in pieces for token in piece.ids] == ids[:place]
        assert sum(len(piece.logprobs) for piece in pieces) == place
        assert pieces[-1].finish == "stop"
        _, found, finish = collect(other.generate(PROMPT, max_tokens=30, sampling=WARM, ignore_eos=True))
        assert (found, finish) == (ids, "length")


def test_stop_strings_across_tokens(engine: Engine) -> None:
    text, ids, _ = collect(engine.generate(PROMPT, max_tokens=60, sampling=WARM, ignore_eos=True))
    assert len(text) > 20
    for start, size in ((0, 2), (7, 1), (9, 3), (14, 5)):
        stop = text[start : start + size]
        found = engine.generate(
            PROMPT, max_tokens=60, sampling=WARM, ignore_eos=True, stop=["never there", stop]
        )
        shown, used, finish = collect(found)
        assert (shown, finish) == (text[: text.index(stop)], "stop")
        assert used == ids[: len(used)]
        assert len(used) < 60


def test_text_held_for_a_stop_string_comes_at_the_end(engine: Engine) -> None:
    text, _, _ = collect(engine.generate(PROMPT, max_tokens=25, sampling=WARM, ignore_eos=True))
    stop = [text[-2:] + "and more"]
    again = engine.generate(PROMPT, max_tokens=25, sampling=WARM, ignore_eos=True, stop=stop)
    assert collect(again)[::2] == (text, "length")


def test_no_tokens_asked_for(engine: Engine) -> None:
    assert list(engine.generate(PROMPT, max_tokens=0)) == [Piece("", (), None, None, "length")]


def test_a_full_context_ends_the_answer(engine: Engine) -> None:
    prompt = PROMPT * 39
    _, ids, finish = collect(engine.generate(prompt, max_tokens=99, ignore_eos=True))
    # The token after the last position is drawn but never stored.
    assert (len(prompt) + len(ids), finish) == (engine.context + 1, "length")
    _, ids, finish = collect(engine.generate(PROMPT * 40, max_tokens=99, ignore_eos=True))
    assert (len(ids), finish) == (1, "length")


def test_a_prompt_beyond_the_context_is_refused_before_any_work(engine: Engine) -> None:
    before = engine.stats()
    for call in (engine.logits, engine.score, lambda ids: engine.generate(ids, max_tokens=-3)):
        with pytest.raises(ContextError, match="201 tokens, expected at most 200"):
            call(PROMPT * 40 + [1])
    assert engine.stats() == before


@pytest.mark.parametrize("ids", [[], [-1], [5, VOCAB]])
def test_prompts_that_are_none(engine: Engine, ids: list[int]) -> None:
    for call in (engine.logits, engine.score, lambda ids: engine.generate(ids, max_tokens=3)):
        with pytest.raises(UsageError):
            call(ids)


def test_senseless_counts(engine: Engine) -> None:
    with pytest.raises(UsageError, match="max_tokens"):
        engine.generate(PROMPT, max_tokens=-1)
    with pytest.raises(UsageError, match="alternatives"):
        engine.generate(PROMPT, max_tokens=1, logprobs=-1)
    with pytest.raises(UsageError, match="chunk"):
        engine.logits(PROMPT, chunk=0)


def test_cancelled_between_tokens(engine: Engine) -> None:
    asked = iter([False] * 5 + [True] * 99)
    answer = engine.generate(PROMPT, max_tokens=50, ignore_eos=True, cancelled=lambda: next(asked))
    assert all(piece.finish is None for piece in answer)
    assert 0 < answer.stats.decode_tokens < 6


def test_cancelled_between_chunks_of_the_prompt(artifact_path: ArtifactPath) -> None:
    with Engine.load(artifact_path("rotated-tied"), threads=1, ctx=1000) as engine:
        asked = iter([False, True])
        answer = engine.generate([7] * 900, max_tokens=5, cancelled=lambda: next(asked))
        assert list(answer) == []
        assert answer.stats.prefill_tokens == engine.footprint.step_tokens
        assert engine.free_pages == engine.pages


def test_pages_come_back_however_a_request_ends(engine: Engine) -> None:
    def fail() -> bool:
        raise RuntimeError("the caller failed")

    with pytest.raises(RuntimeError, match="the caller failed"):
        list(engine.generate(PROMPT, max_tokens=50, cancelled=fail))
    assert engine.free_pages == engine.pages
    pieces = engine.generate(PROMPT, max_tokens=50, ignore_eos=True)
    next(pieces)
    assert engine.free_pages < engine.pages
    pieces.close()
    assert engine.free_pages == engine.pages
    engine.generate(PROMPT, max_tokens=50)
    assert engine.free_pages == engine.pages


def test_who_finds_no_room_pushes_the_younger_out_and_both_are_answered(engine: Engine) -> None:
    alone = collect(engine.generate([3] * 150, max_tokens=20, ignore_eos=True))
    short = engine.generate([5] * 100, max_tokens=30, ignore_eos=True)
    began = list(next(short).ids)
    assert collect(engine.generate([3] * 150, max_tokens=20, ignore_eos=True)) == alone
    rest = collect(short)
    assert (len(began) + len(rest[1]), rest[2]) == (30, "length")
    assert len(engine.score([3] * 100)) == 99


def test_what_was_read_is_not_read_again(engine: Engine) -> None:
    first = engine.generate(PROMPT * 10, max_tokens=20, ignore_eos=True)
    answer = collect(first)
    assert first.stats.cached_tokens == 0
    again = engine.generate(PROMPT * 10, max_tokens=20, ignore_eos=True)
    assert collect(again) == answer
    assert (again.stats.cached_tokens, again.stats.prefill_tokens) == (len(PROMPT) * 10 - 1, 1)
    longer = engine.generate([*PROMPT * 10, *answer[1], 9, 9], max_tokens=5, ignore_eos=True)
    collect(longer)
    # The token drawn last is not in the cache.
    assert longer.stats.prefill_tokens == 3


def test_requests_in_turns_and_in_threads_do_not_disturb_each_other(engine: Engine) -> None:
    prompts = [PROMPT, [9, 8, 7], [BOS] * 40]

    def start(prompt: list[int]) -> Iterator[Piece]:
        return engine.generate(prompt, max_tokens=15, sampling=WARM, ignore_eos=True)

    alone = [collect(start(prompt))[1] for prompt in prompts]
    running = [start(prompt) for prompt in prompts]
    found: list[list[int]] = [[], [], []]
    while any(len(ids) < 15 for ids in found):
        for ids, pieces in zip(found, running, strict=True):
            ids.extend(token for piece in islice(pieces, 1) for token in piece.ids)
    assert found == alone
    # Read to the end: a generator at rest holds its pages, and the threads below need them.
    assert [collect(pieces)[1] for pieces in running] == [[], [], []]
    results: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: collect(start(prompts[i]))[1]}))
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[i] for i in range(3)] == alone


def test_stats_count_the_work(engine: Engine) -> None:
    answer = engine.generate(PROMPT, max_tokens=12, ignore_eos=True)
    collect(answer)
    stats = answer.stats
    assert (stats.prefill_tokens, stats.decode_tokens) == (len(PROMPT), 11)
    assert stats.prefill_tok_s > 0
    assert stats.decode_tok_s > 0


def test_a_step_with_scores_takes_the_time_that_it_takes(engine: Engine) -> None:
    before, begun = engine.stats().step.total, time.perf_counter()
    engine.score([BOS, *range(20)])
    assert 0 < engine.stats().step.total - before <= time.perf_counter() - begun


def test_score_of_one_token_and_of_several_steps(engine: Engine) -> None:
    assert engine.score([5]) == []
    whole = engine.score(PROMPT * 20, top=2)  # more rows than a step scores
    assert [score.id for score in whole] == (PROMPT * 20)[1:]
    assert engine.score(PROMPT, top=2) == whole[: len(PROMPT) - 1]


def test_defaults_and_limits_of_loading(artifact_path: ArtifactPath) -> None:
    path = artifact_path("rotated-tied")
    with Engine.load(path) as engine:
        assert engine.context == engine.config.context == 1024
        assert engine.name == "rotated-tied"
        assert engine.threads >= 1
    with Engine.load(path, threads=1) as engine:
        tight = engine.footprint.bytes // 2
    with Engine.load(path, threads=1, memory=tight) as engine:
        assert 0 < engine.context < 1024
        assert engine.footprint.bytes <= tight
        assert len(engine.logits([1] * engine.context)) == engine.context
    with pytest.raises(BudgetError, match="at most"):
        Engine.load(path, threads=1, ctx=1024, memory=tight)
    with pytest.raises(BudgetError, match="weights"):
        Engine.load(path, memory=1000)
    with pytest.raises(UsageError):
        Engine.load(path, ctx=5000)
    with pytest.raises(UsageError):
        Engine.load(path, threads=0)
    with pytest.raises(NativeError):
        Engine.load(path, kernel="abacus")
    with pytest.raises(ArtifactError):
        Engine.load(path / "nowhere")


@pytest.mark.parametrize("threads", [1, 3])
def test_the_native_core_takes_what_is_planned(artifact_path: ArtifactPath, threads: int) -> None:
    with Engine.load(artifact_path("two-planes"), threads=threads) as engine:
        planned = engine.footprint.bytes - engine.artifact.tensor_bytes
        assert engine.native_bytes == planned


def test_the_log_says_what_was_chosen(artifact_path: ArtifactPath, caplog: pytest.LogCaptureFixture) -> None:
    path = artifact_path("tied")
    with caplog.at_level(logging.INFO, "rockledge"), Engine.load(path, threads=1) as engine:
        pass
    assert f"kernel {engine.kernel}" in caplog.text
    assert "1 thread (requested)" in caplog.text
    assert "MB cache" in caplog.text


def test_a_closed_engine_says_so(artifact_path: ArtifactPath) -> None:
    engine = Engine.load(artifact_path("tied"), threads=1, ctx=64)
    engine.close()
    engine.close()
    with pytest.raises(NativeError, match="closed"):
        engine.logits(PROMPT)
    with pytest.raises(NativeError, match="closed"):
        next(engine.generate(PROMPT, max_tokens=1))


def test_where_the_time_of_steps_goes(engine: Engine) -> None:
    names, times = engine.time_operations()
    assert len(names) == len(times)
    assert {"embed", "linear", "attention", "gather"} <= set(names)
    collect(engine.generate(PROMPT, max_tokens=3, ignore_eos=True))
    assert (times > 0).all()


@pytest.mark.parametrize("variant, unread", [("rotated-tied", ()), ("rotated", ("embed",))])
def test_a_step_reads_all_weights_but_an_untied_embedding(
    artifact_path: Callable[[str], Path], variant: str, unread: tuple[str, ...]
) -> None:
    with Engine.load(artifact_path(variant), threads=1) as engine:
        read = [engine.artifact.linear(name) for name in engine.artifact.linears if name not in unread]
        stored = sum(linear.codes.nbytes + linear.index.nbytes + linear.scale.nbytes for linear in read)
        bands = sum(len(linear.bands) for linear in read)
        assert stored - 2 * 64 * bands < engine.step_bytes <= stored  # bands are padded to 64 bytes
        c = engine.config
        assert engine.cache_bytes_read(1) == 2 * c.layers * c.kv_heads * (-(-c.head_dim // 32) * 32 + 4)


def test_times_and_hits_are_measured(engine: Engine) -> None:
    before = engine.stats()
    prompt = [BOS, *range(30, 130)]
    for _ in range(2):
        collect(engine.generate(prompt, max_tokens=5, ignore_eos=True))
    after = engine.stats()

    def more(name: str) -> int:
        return sum(getattr(after, name).counts) - sum(getattr(before, name).counts)

    assert (more("first_token"), more("token")) == (2, 8)
    assert more("step") == more("step_sequences") == after.steps - before.steps
    assert after.step_sequences.total - before.step_sequences.total == after.steps - before.steps
    assert after.prefix_hits - before.prefix_hits == 1
    assert after.token.total - before.token.total > 0
    assert after.step.total - before.step.total < 60
