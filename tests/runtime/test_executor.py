"""One native step for many sequences: what it draws is what its logits say, and pages move as bytes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tests.runtime.artifacts import BOS, VOCAB
from tests.runtime.scores import log_probabilities, most_probable

from rockledge.artifact import open_artifact
from rockledge.errors import NativeError
from rockledge.runtime.drawing import Drawing, Given
from rockledge.runtime.executor import Executor
from rockledge.runtime.program import build_program
from rockledge.runtime.sampling import Sampling

ArtifactPath = Callable[[str], Path]
UInt32 = npt.NDArray[np.uint32]
PROMPTS = ([BOS, 1, 2, 3], [BOS, 9], [BOS, 40, 41, 42, 43, 44, 45])
PAGES = 3  # of each sequence


@contextmanager
def executor_of(path: Path, rows: int = 40, threads: int = 2) -> Iterator[Executor]:
    plan = build_program(open_artifact(path))
    pools = plan.pools(32 * PAGES * (len(PROMPTS) + 1), rows)
    executor = Executor(plan, max_rows=rows, context=32 * PAGES, pools=pools, threads=threads, kernel="auto")
    for slot in range(len(PROMPTS)):
        executor.tables[:, slot] = np.arange(PAGES) + PAGES * slot
    yield executor
    executor.close()


def place(executor: Executor, rows: list[tuple[int, int, int]]) -> int:
    """Writes rows of (token, position, slot); returns how many."""
    for array, values in zip(
        (executor.tokens, executor.positions, executor.sequences), zip(*rows, strict=True), strict=True
    ):
        array[: len(rows)] = values
    return len(rows)


def prompts(executor: Executor, of: list[int]) -> int:
    """The whole prompts, of which the last rows are wanted."""
    rows = [(token, at, slot) for slot in of for at, token in enumerate(PROMPTS[slot])]
    executor.wanted[: len(of)] = np.cumsum([len(PROMPTS[slot]) for slot in of]) - 1
    return place(executor, rows)


def drawings() -> list[Drawing]:
    settings = (
        Sampling(temperature=1.0, seed=3, top_p=0.9),
        Sampling(repetition_penalty=1.5),
        Sampling(temperature=2.0, seed=4, presence_penalty=0.5, logit_bias=((7, 2.0),)),
    )
    return [
        Drawing(one, np.array(prompt, np.int32), most=20, ends=(), logprobs=3)
        for one, prompt in zip(settings, PROMPTS, strict=True)
    ]


def answers(executor: Executor, of: list[int], steps: int = 12) -> list[list[tuple[int, float]]]:
    some, found = [drawings()[slot] for slot in of], [list[tuple[int, float]]() for _ in of]
    executor.step(prompts(executor, of), some)
    for number in range(steps):
        rows = []
        for slot, one, each in zip(of, some, found, strict=True):
            each.append((one.take(), one.logprob))
            rows.append((each[-1][0], len(PROMPTS[slot]) + number, slot))
        executor.wanted[: len(of)] = np.arange(len(of))
        executor.step(place(executor, rows), some)
    return found


def test_a_sequence_is_answered_as_if_alone(artifact_path: ArtifactPath) -> None:
    with executor_of(artifact_path("rotated-tied")) as executor:
        together = answers(executor, [2, 0, 1])
    for threads in (1, 4):
        with executor_of(artifact_path("rotated-tied"), threads=threads) as executor:
            assert [answers(executor, [slot])[0] for slot in (2, 0, 1)] == together


def test_draws_and_scores_are_of_the_logits_of_their_rows(artifact_path: ArtifactPath) -> None:
    with executor_of(artifact_path("qk-norm")) as executor:
        rows = prompts(executor, [0, 1, 2])
        wanted = executor.wanted[:3].copy()
        results = np.zeros((rows, VOCAB), np.float32)
        executor.wanted[:rows] = np.arange(rows)
        executor.step(rows, results=results)
        greedy = Drawing(Sampling(), np.zeros(0, np.int32), most=1, ends=())
        first, last = Given(5, 4), Given(6, 0)
        executor.wanted[:3] = wanted
        executor.step(rows, [first, greedy, last])
    expected = log_probabilities(results[wanted])
    assert greedy.token == int(results[wanted[1]].argmax())
    assert [first.logprob, last.logprob] == pytest.approx([expected[0, 5], expected[2, 6]], rel=1e-13)
    best = most_probable(expected[0], 4)
    assert [one.id for one in first.top] == [one.id for one in best]
    assert [one.logprob for one in first.top] == pytest.approx([one.logprob for one in best], rel=1e-13)
    assert last.top == ()


def test_pages_move_as_bytes(artifact_path: ArtifactPath) -> None:
    """What was read in one executor goes on in another, at other pages."""
    with executor_of(artifact_path("tied")) as first, executor_of(artifact_path("tied")) as second:
        right = np.zeros((1, VOCAB), np.float32)
        first.step(prompts(first, [2]))
        first.wanted[0] = 0
        rows = place(first, [(50, len(PROMPTS[2]), 2)])
        first.step(rows, results=right)
        page, size = int(first.tables[0, 2, 0]), first.page_bytes(0)
        data = np.zeros(size, np.uint8)
        first.read_page(0, page, data)
        second.tables[:, 0] = [9, 1, 2]
        second.write_page(0, 9, data)
        second.wanted[0] = 0
        again = np.zeros_like(right)
        second.step(place(second, [(50, len(PROMPTS[2]), 0)]), results=again)
        assert (again == right).all()
        assert size * len(PROMPTS) * PAGES < first.bytes
        for wrong in (-1, 10**6):
            with pytest.raises(NativeError, match=f"there is no page {wrong}"):
                first.read_page(0, wrong, data)
            with pytest.raises(NativeError, match=f"there is no page {wrong}"):
                first.write_page(0, wrong, data)
        with pytest.raises(NativeError, match="there is no KV pool 1"):
            first.page_bytes(1)
        with pytest.raises(NativeError, match="expected"):
            first.read_page(0, 0, data[:-1])


def test_steps_out_of_range_are_refused(artifact_path: ArtifactPath) -> None:
    with executor_of(artifact_path("tied"), rows=40) as executor:
        assert (executor.slots, executor.logit_rows) == (40, 32)
        rows = prompts(executor, [0])
        with pytest.raises(NativeError, match="33 draws in a step, expected at most 32"):
            executor.step(rows, [Given(1, 0)] * 33)
        for wrong in (np.zeros((1, VOCAB)), np.zeros((1, VOCAB + 1), np.float32)):
            with pytest.raises(NativeError, match="expected contiguous writable float32"):
                executor.step(rows, results=wrong)  # type: ignore[arg-type]
        for wrong_rows in (0, 41):
            with pytest.raises(NativeError, match=f"the step has {wrong_rows} rows"):
                executor.step(wrong_rows)
        executor.sequences[0] = 40
        with pytest.raises(NativeError, match="sequence 40 of 40"):
            executor.step(rows)


def test_masks_that_are_made_beside_the_step_hold(artifact_path: ArtifactPath) -> None:
    """They are waited for once, after all that does not need them; the draw is that of a mask made before."""
    with executor_of(artifact_path("rotated-tied")) as executor:
        rows = prompts(executor, [0, 1, 2])
        drawn = []
        for late in (False, True):
            draws, masks = drawings(), [np.zeros(-(-VOCAB // 32), np.uint32) for _ in PROMPTS]
            calls: list[None] = []

            def fill(masks: list[UInt32] = masks, calls: list[None] = calls) -> None:
                calls.append(None)
                for number, mask in enumerate(masks):
                    mask[2] = 0b1011 << number

            for draw, mask in zip(draws, masks, strict=True):
                draw.allow(mask)
            if late:
                executor.step(rows, draws, masks=fill)
                assert len(calls) == 1
            else:
                fill()
                executor.step(rows, draws)
            drawn.append([(draw.token, draw.logprob, draw.top) for draw in draws])
        assert drawn[0] == drawn[1]
        for number, (token, _, _) in enumerate(drawn[0]):
            assert token - 64 - number in (0, 1, 3)
