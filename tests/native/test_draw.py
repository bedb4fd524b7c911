"""What a request changes in its logits, and their scores, against transformers' processors and NumPy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.native.one_op import step_of, supported_kernels
from tests.native.rows_of_logits import draw, handing_on

from rockledge.errors import NativeError, UsageError
from rockledge.runtime.drawing import Drawing, Given
from rockledge.runtime.sampling import Sampling

VOCAB = 97
ENDS = (3, 7)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """In double, by its definition."""
    wide: np.ndarray = logits.astype(np.float64) - float(logits.max())
    return np.subtract(wide, float(np.log(np.exp(wide).sum())))


def logits_of(rng: np.random.Generator, rows: int = 1, vocab: int = VOCAB) -> np.ndarray:
    return rng.normal(0, 2, (rows, vocab)).astype(np.float32)


def drawing(prompt: list[int] | None = None, logprobs: int | None = None, **fields: Any) -> Drawing:
    return Drawing(
        Sampling(**fields), np.array(prompt or [], np.int32), most=64, ends=ENDS, logprobs=logprobs
    )


def changed(logits: np.ndarray, prompt: list[int], answer: list[int], sampling: Sampling) -> np.ndarray:
    """What transformers makes of logits [vocab] after prompt and answer, and then OpenAI's formula:
    mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence."""
    torch: Any = pytest.importorskip("torch")  # not on the emulated board
    define: Any = pytest.importorskip("transformers.generation.logits_process")
    ids, scores = torch.tensor([prompt + answer]), torch.from_numpy(logits[None].copy())
    bias: list[list[list[int] | float]] = [[[token], add] for token, add in sampling.logit_bias if add > -100]
    never = [token for token, add in sampling.logit_bias if add <= -100]
    if bias:
        scores = define.SequenceBiasLogitsProcessor(bias)(ids, scores)
    if sampling.repetition_penalty != 1 and prompt + answer:
        scores = define.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, scores)
    if sampling.min_tokens:
        ends = torch.tensor([*ENDS, *sampling.stop_ids])
        scores = define.MinNewTokensLengthLogitsProcessor(len(prompt), sampling.min_tokens, ends)(ids, scores)
    found: np.ndarray = scores[0].numpy()
    count = np.bincount(np.array(answer, np.int64), minlength=len(found)).astype(np.float32)
    found = found - np.float32(sampling.frequency_penalty) * count
    found = found - np.float32(sampling.presence_penalty) * (count > 0)
    found[never] = -np.inf
    return found


def uniform(seed: int, number: int) -> float:
    """Two rounds of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators)."""
    z, mask = seed, (1 << 64) - 1
    for add in (number, 0):
        z = (z + (add + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
    return (z >> 11) * 2.0**-53


def expected(logits: np.ndarray, sampling: Sampling, number: int) -> int | None:
    """The token of a draw without filters; None where rounding may decide."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    weights = np.exp((logits - logits.max()).astype(np.float64) / sampling.temperature)
    ends = np.cumsum(weights) / weights.sum()
    at = uniform(sampling.seed_or_fresh(), number)
    token = int(np.searchsorted(ends, at, side="right"))
    return None if np.abs(ends - at).min() < 1e-5 else token


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.5, 1.0, 4.0]),
        "repetition_penalty": st.sampled_from([0.5, 1.3, 4.0]),
        "presence_penalty": st.sampled_from([-2.0, 0.25, 2.0]),
        "frequency_penalty": st.sampled_from([-1.0, 0.3, 2.0]),
        "logit_bias": st.lists(
            st.tuples(st.integers(0, VOCAB - 1), st.sampled_from([-100.0, -101.0, -99.0, -3.0, 5.0])),
            max_size=5,
            unique_by=lambda pair: pair[0],
        ).map(tuple),
        "min_tokens": st.integers(0, 12),
        "stop_ids": st.just((5, 9)),
    },
)


@settings(max_examples=60, deadline=None)
@given(SETTINGS, st.integers(0, 10**6), st.lists(st.integers(0, VOCAB - 1), max_size=12), st.booleans())
def test_settings_do_what_transformers_and_openai_define(
    fields: dict[str, Any], seed: int, prompt: list[int], scored: bool
) -> None:
    """Ten draws in a row, each after what was drawn before; scores are of the logits before all of it."""
    rng = np.random.default_rng(seed)
    one, answer = drawing(prompt, 5 if scored else None, seed=seed, **fields), list[int]()
    for number in range(1, 11):
        logits = logits_of(rng)
        draw(logits, [one])
        sampling = Sampling(seed=seed, **fields)
        right = expected(changed(logits[0], prompt, answer, sampling), sampling, number)
        assert right in (None, one.token)
        if scored:
            ours = log_softmax(logits[0])
            assert one.logprob == pytest.approx(ours[one.token], rel=1e-13, abs=1e-13)
            assert [top.id for top in one.top] == np.argsort(-ours, kind="stable")[:5].tolist()
        answer.append(one.take())
    assert one.drawn == 10


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3000), st.integers(0, 3000), st.booleans())
def test_given_tokens_are_scored_as_log_softmax(seed: int, vocab: int, top: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    logits = ((rng.normal(0, 10, (1, vocab)) * (1 if ties else 64)).round() / 64).astype(np.float32)
    token = int(rng.integers(vocab))
    one = Given(token, top)
    draw(logits, [one])
    right = log_softmax(logits[0])
    order = np.argsort(-logits[0], kind="stable")[:top]
    assert one.token == token
    assert one.logprob == pytest.approx(right[token], rel=1e-13, abs=1e-13)
    assert [each.id for each in one.top] == order.tolist()
    assert np.allclose([each.logprob for each in one.top], right[order], rtol=1e-13, atol=1e-13)


def test_logits_far_apart_and_infinite() -> None:
    logits = np.array([[0.0, -1e30, -np.inf, 3e38], [np.inf, 1.0, np.inf, 0.0]], np.float32)
    some = [Given(0, 4), Given(2, 4)]
    draw(logits, some)
    assert some[0].logprob == -float(np.float32(3e38))
    assert [each.id for each in some[0].top] == [3, 0, 1]
    assert some[1].logprob == pytest.approx(-np.log(2))
    assert [each.id for each in some[1].top] == [0, 2, 1, 3]


def test_rows_depend_neither_on_each_other_nor_on_threads_or_kernels() -> None:
    rng, rows = np.random.default_rng(4), 7
    fields: list[dict[str, Any]] = [
        {"temperature": 1.0, "seed": 1},
        {"temperature": 0.7, "seed": 2, "top_p": 0.8, "repetition_penalty": 1.4},
        {"presence_penalty": 1.0, "logprobs": 3},
        {"temperature": 2.0, "seed": 3, "top_k": 30, "logprobs": 0, "logit_bias": ((4, 2.0),)},
        {"temperature": 1.5, "seed": 4, "min_p": 0.1, "min_tokens": 3},
        {"frequency_penalty": 0.5},
        {"temperature": 1.0, "seed": 5, "logprobs": 20},
    ]

    def answers(of: list[int], threads: int, kernel: str) -> list[list[tuple[Any, ...]]]:
        rng = np.random.default_rng(9)
        some, found = [drawing([1, 2, 3], **fields[i]) for i in of], [list[tuple[Any, ...]]() for _ in of]
        for _ in range(5):
            logits = logits_of(rng, rows, 4097)[of]
            draw(logits, some, threads, kernel)
            for each, one in zip(found, some, strict=True):
                each.append((one.logprob, one.top, one.take()))
        return found

    alone = [answers([row], 1, "portable")[0] for row in range(rows)]
    for kernel in supported_kernels():
        for threads in (1, 2, 4):
            assert answers(list(range(rows)), threads, kernel) == alone
    order = rng.permutation(rows).tolist()
    assert answers(order, 2, "auto") == [alone[row] for row in order]


def test_only_allowed_tokens_are_drawn_and_scores_do_not_know() -> None:
    rng = np.random.default_rng(5)
    logits, allowed = logits_of(rng), rng.random(VOCAB) < 0.1
    allowed[[0, 31, 32, VOCAB - 1]] = True
    mask = np.packbits(np.pad(allowed, (0, -VOCAB % 32)), bitorder="little").view(np.uint32)
    greedy, many = drawing(logprobs=0), drawing(temperature=20.0, seed=1, logprobs=1)
    for one in (greedy, many):
        one.allow(mask)
    draw(logits, [greedy])
    assert greedy.token == int(np.where(allowed, logits[0], -np.inf).argmax())
    right = log_softmax(logits[0])
    assert greedy.logprob == pytest.approx(right[greedy.token], rel=1e-13)
    found = set()
    for _ in range(300):
        draw(logits, [many])
        assert many.top[0].id == int(logits.argmax())
        found.add(many.take())
    assert found <= set(np.flatnonzero(allowed).tolist())
    assert len(found) > allowed.sum() // 2
    greedy.allow(None)
    draw(logits, [greedy])
    assert greedy.token == int(logits.argmax())


def test_a_row_without_any_token_fails_alone() -> None:
    logits = logits_of(np.random.default_rng(6), 2)
    none, some = drawing(), drawing()
    none.allow(np.zeros(-(-VOCAB // 32), np.uint32))
    draw(logits, [none, some])
    assert some.take() == int(logits[1].argmax())
    with pytest.raises(NativeError, match="none of the logits"):
        none.take()
    assert none.drawn == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"repetition": 0.0}, "penalties"),
        ({"presence": float("nan")}, "penalties"),
        ({"given": VOCAB}, f"given token {VOCAB}"),
        ({"given": -2}, "given token -2"),
        ({"seen_count": -1}, "lacks one of its lists"),
        ({"bias_count": 1}, "lacks one of its lists"),
        ({"top_count": 3}, "lacks one of its lists"),
    ],
)
def test_draws_out_of_range_are_refused(change: dict[str, float], said: str) -> None:
    one = drawing()
    for name in ("bias", "top_tokens"):
        setattr(one.record, name, None)
    for name, value in change.items():
        setattr(one.record, name, value)
    with pytest.raises(NativeError, match=said):
        draw(np.zeros((1, VOCAB), np.float32), [one])


def test_tokens_that_the_model_lacks_are_refused() -> None:
    logits = np.zeros((1, VOCAB), np.float32)
    for wrong in (
        drawing(logit_bias=((VOCAB, 1.0),)),
        drawing(logit_bias=((VOCAB, -100.0),)),
        drawing([VOCAB], repetition_penalty=1.1),
    ):
        with pytest.raises(NativeError, match=f"tokens 0 to {VOCAB - 1}"):
            draw(logits, [wrong])
    one = drawing()
    one.allow(np.zeros(VOCAB // 32, np.uint32))
    with pytest.raises(NativeError, match=f"expected bits for {VOCAB} tokens"):
        draw(logits, [one])
    with pytest.raises(NativeError, match="expected contiguous uint32"):
        one.allow(np.zeros(8, np.int32))


def test_steps_that_cannot_draw_are_refused() -> None:
    program = handing_on(2, VOCAB)
    step, logits = step_of(2, logit_rows=np.arange(2, dtype=np.int32)), np.zeros((2, VOCAB), np.float32)
    some = [drawing().record, drawing().record]
    with pytest.raises(NativeError, match="give one of them"):
        program.run(step, logits, draws=some)
    with pytest.raises(NativeError, match="operations end before"):
        program.run(step, last=0, draws=some)
    with pytest.raises(NativeError, match="1 draws for 2 logit rows"):
        program.run(step, draws=some[:1])
    three = step_of(2, logit_rows=np.array([0, 1, 0], np.int32))
    with pytest.raises(NativeError, match="at most 2"):
        program.run(three, draws=[*some, drawing().record])


def test_alternatives_below_none_are_refused() -> None:
    with pytest.raises(UsageError, match="logprobs is -1"):
        drawing(logprobs=-1)
    with pytest.raises(UsageError, match="-1 alternatives"):
        Given(0, -1)
