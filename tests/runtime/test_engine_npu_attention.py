"""Attention of prompts on a virtual NPU: the same logits to the bit, whatever the device does.

The engine's answers are compared with those of one that leaves the NPU alone (`engine_worker`).
"""

import pytest
from tests.runtime.virtual_npu import Worker

TRIED = 12 + 8  # programs of linears, and of attention: two products at four step sizes
LEAST = 64  # rows of a run


@pytest.fixture(scope="module")
def worker():
    worker = Worker(module="engine_worker")
    yield worker
    worker.close()


@pytest.fixture
def ask(worker, artifact_path):
    """`ask("bias", "rknpu", faults, lengths=...)`: what a fresh engine on a fresh virtual NPU answers."""

    def asked(variant, driver, faults=(), **order):
        order = {"npu_rows": 2, "npu": "require", "ctx": 1024, "npu_attention_from": 100, **order}
        told = {"order": "ask", "path": str(artifact_path(variant)), **order}
        answer, summary = worker.tell(told, driver, faults, version=(0, 9, 8))
        before, after = answer["held"]
        assert after == before, "descriptors or mappings are left"
        assert (summary.files_left, summary.crashes) == (0, 0)
        assert answer["error"] is None
        assert all(answer["same"])
        assert all(answer["answered"])
        return answer

    return asked


def warnings(answer):
    return [text for level, text in answer["said"] if level == "WARNING"]


@pytest.mark.parametrize(
    ("variant", "driver"),
    [
        *((variant, "rknpu") for variant in ("rotated-tied", "bias", "heads-of-50")),
        *((variant, "rknpu") for variant in ("norms-around", "windows-and-bias")),
        ("heads-of-50", "rocket"),
    ],
)
def test_logits_and_answers_are_those_of_the_cpu(ask, variant, driver):
    """Score biases, soft caps, windows that begin inside a page, heads that are padded; a prompt in two
    splits, the second of them hardly begun."""
    answer = ask(variant, driver, lengths=(99, 560), tokens=3)
    npu = answer["npu"]
    assert (npu["state"], npu["faults"], npu["fallbacks"]) == ("ready", 0, 0)
    assert npu["attention_from"] == 100
    # Steps of at most 512 tokens: of the second prompt positions 100 to 511, and 48 further ones are too few.
    # Once for the logits, once for the answer.
    assert npu["attention_rows"] == 2 * 412
    assert npu["attention_jobs"] > 0
    assert warnings(answer) == []
    assert any("attention from position 100 on" in text for _, text in answer["said"])


@pytest.mark.parametrize("kernel", ["portable", "avx2"])
def test_every_kernel_makes_the_same_of_its_sums(ask, kernel):
    assert ask("bias", "rknpu", lengths=(300,), kernel=kernel)["npu"]["attention_rows"] == 200


@pytest.mark.parametrize("chunk", [LEAST, 201])
def test_chunks_change_nothing(ask, chunk):
    answer = ask("rotated-tied", "rknpu", lengths=(620,), chunk=chunk)
    rows = answer["npu"]["attention_rows"]
    steps = [(first, min(620, first + chunk)) for first in range(0, 620, chunk)]
    runs = [end - max(first, 100) for first, end in steps]
    assert rows == sum(run for run in runs if run >= LEAST)


def test_it_is_off_unless_asked_for_and_for_prompts_that_end_before(ask):
    answer = ask("tied", "rknpu", lengths=(300,), npu_attention_from=None)
    assert answer["npu"]["attention_from"] is None
    assert answer["npu"]["attention_jobs"] == 0
    assert ask("tied", "rknpu", lengths=(300,), npu_attention_from=300)["npu"]["attention_jobs"] == 0


FIRST = 2  # job of a step of the toy that is attention's; scores of two heads, then sums of the first


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (FIRST, {"kind": "lost"}),
        (FIRST, {"kind": "flipped_bits"}),
        (FIRST + 2, {"kind": "flipped_bits"}),
        (FIRST + 2, {"kind": "skipped_program", "program": -1}),
        (FIRST + 2, {"kind": "stale_output"}),
    ],
)
def test_a_fault_is_noticed_and_changes_nothing(ask, number, fault):
    answer = ask("tied", "rknpu", [{**fault, "at": 5 + TRIED + number}], lengths=(300,))
    npu = answer["npu"]
    assert npu["state"] == "ready"
    assert (npu["faults"], npu["resets"], npu["fallbacks"]) == (1, 1, 0)


def test_two_wrong_attentions_in_a_step_end_the_use_of_the_device(ask):
    """Those of both layers; in between the device was reset and proven, and the CPU did the first."""
    wrong = [{"kind": "flipped_bits", "at": 5 + TRIED + number} for number in (3, 11)]
    answer = ask("tied", "rknpu", wrong, lengths=(600,), again=2)
    assert answer["states"] == ["failed", "failed"]
    npu = answer["npu"]
    assert (npu["faults"], npu["resets"], npu["fallbacks"]) == (2, 1, 1)
    assert "its sums are wrong" in npu["reason"]


def test_a_device_that_goes_away_leaves_all_to_the_cpu(ask):
    """Mainline's driver counts a job for every program: the third of the step's are attention's first."""
    answer = ask("tied", "rocket", [{"kind": "gone", "at": 9 + 3 * TRIED + 20}], lengths=(600,))
    assert (answer["states"], answer["npu"]["fallbacks"]) == (["failed"], 1)


def test_programs_that_compute_wrongly_leave_attention_to_the_cpu(ask):
    """The first trial of attention: linears stay on the NPU."""
    answer = ask("tied", "rknpu", [{"kind": "wrong_rows", "every": 1, "at": 5 + 12 + 1}], lengths=(600,))
    npu = answer["npu"]
    assert (npu["state"], npu["attention_from"], npu["attention_jobs"]) == ("ready", None, 0)
    assert npu["rows"] == 600
    assert any("attention stays on the CPU: on the NPU the scores" in text for text in warnings(answer))


def test_without_memory_for_it_attention_stays_on_the_cpu(ask):
    answer = ask("tied", "rknpu", lengths=(200,), ctx=256, memory=1_500_000)
    assert (answer["npu"]["state"], answer["npu"]["attention_from"]) == ("ready", None)
    assert any("no memory left for it" in text for text in warnings(answer))
