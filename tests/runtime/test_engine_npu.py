"""Engines whose prompts go to a virtual NPU: the same logits to the bit, whatever the device does."""

import pytest
from tests.runtime.virtual_npu import Worker

DRIVERS = ("rknpu", "rocket")
LENGTHS = (1, 3, 64, 130, 700)
TRIED = 12  # programs of the toy with steps of up to 512 tokens: three shapes


def of_step(driver, number):
    """The job of a driver that is number `number`, from 1, of the first step: others prove and try before."""
    return (5 + TRIED if driver == "rknpu" else 9 + 3 * TRIED) + number


@pytest.fixture(scope="module")
def worker():
    worker = Worker(module="engine_worker")
    yield worker
    worker.close()


@pytest.fixture
def ask(worker, artifact_path):
    """`ask("tied", "rknpu", faults, lengths=...)`: what a fresh engine on a fresh virtual NPU answers."""

    def asked(variant, driver, faults=(), *, version=(0, 9, 8), **order):
        order = {"npu_rows": 2, "npu": "auto", "ctx": 1024, **order}
        told = {"order": "ask", "path": str(artifact_path(variant)), **order}
        answer, summary = worker.tell(told, driver, faults, version=version)
        before, after = answer["held"]
        assert after == before, "descriptors or mappings are left"
        assert (summary.files_left, summary.crashes) == (0, 0)
        if not any(fault["kind"] == "gone" for fault in faults):
            assert summary.buffers_left == 0
        return answer, summary

    return asked


def warnings(answer):
    return [text for level, text in answer["said"] if level == "WARNING"]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("variant", ["rotated-tied", "bias", "qk-norm", "mixed-planes", "heads-of-50"])
def test_logits_and_answers_are_those_of_the_cpu(ask, driver, variant):
    answer, _ = ask(variant, driver, lengths=LENGTHS, tokens=4)
    assert answer["error"] is None
    assert all(answer["same"])
    assert all(answer["answered"])
    npu = answer["npu"]
    assert npu["reason"] is None
    assert set(answer["states"]) == {"ready"}
    assert (npu["driver"], npu["cores"], npu["faults"], npu["fallbacks"]) == (driver, 3, 0, 0)
    # Every prompt but the one of one token goes there, for logits and for the answer, in steps of up to 512:
    # of how many tokens follows from measured times.
    assert npu["steps"] >= 2 * 5
    assert npu["rows"] == 2 * (3 + 64 + 130 + 700)
    assert warnings(answer) == []
    assert any(driver in text and "of 2 to 512 tokens" in text for _, text in answer["said"])


@pytest.mark.parametrize(
    "variant", ["norms-around", "norms-after", "partly-turned", "scales", "windows-and-bias"]
)
def test_every_form_of_a_layer_has_the_logits_of_the_cpu(ask, variant):
    """Norms after branches, inputs that are turned at run time, GELU, soft caps, biases of all linears and
    scales, with prompts much longer than windows and steps."""
    answer, _ = ask(variant, "rknpu", lengths=(3, 130, 530), tokens=4)
    assert answer["error"] is None
    assert all(answer["same"])
    assert all(answer["answered"])
    assert set(answer["states"]) == {"ready"}
    npu = answer["npu"]
    assert (npu["rows"], npu["faults"], npu["fallbacks"]) == (2 * (3 + 130 + 530), 0, 0)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("chunk", [7, 65, 200])
def test_chunks_change_nothing(ask, driver, chunk):
    answer, _ = ask("rotated-tied", driver, lengths=(300,), chunk=chunk)
    assert answer["same"] == [True]
    assert answer["npu"]["steps"] >= -(-300 // chunk) - (300 % chunk == 1)


@pytest.mark.parametrize("driver", DRIVERS)
def test_steps_below_the_threshold_stay_on_the_cpu(ask, driver):
    answer, _ = ask("plain", driver, lengths=(99, 100, 101), npu_rows=100)
    assert all(answer["same"])
    assert (answer["npu"]["steps"], answer["npu"]["rows"]) == (2, 201)


def test_the_formula_leaves_a_toy_to_the_cpu(ask):
    answer, summary = ask("plain", "rknpu", lengths=(300,), npu_rows=None)
    assert answer["same"] == [True]
    assert answer["states"] == ["slower"]
    assert warnings(answer) == []
    assert summary.files_opened > 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_memory_is_kept_to(ask, driver):
    answer, _ = ask("two-planes", driver, lengths=(200,))
    assert answer["npu"]["buffer_bytes"] > 0
    planned = answer["planned_bytes"] - answer["npu"]["buffer_bytes"]
    # The programs' own words are the device's buffers too, and no part of the plan.
    assert 0 <= answer["native_bytes"] - planned < 1 << 17
    # Less memory: smaller steps, then weights that pass through the ring, then no NPU; always right.
    found = []
    for memory in (4_000_000, 1_400_000, 700_000):
        answer, _ = ask("two-planes", driver, lengths=(200,), memory=memory, ctx=256)
        assert answer["same"] == [True]
        assert answer["planned_bytes"] <= memory
        found.append((answer["states"][0], answer["step_tokens"], answer["npu"]["unpacked_bytes"]))
    assert found[0][:2] == ("ready", 256)
    assert found[1][:2] == ("ready", 64)
    assert found[1][2] > 2 * found[0][2]  # the second step unpacked them once more, and the third
    assert found[2] == ("unusable", 128, 0)
    assert "MB of memory left for it" in warnings(answer)[0]


# Faults that one reset mends, in any job of the step.
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "lost", "at": 6},
        {"kind": "skipped", "at": 4},
        {"kind": "error", "errno": "EIO", "at": 8},
        {"kind": "skipped_program", "program": 1, "at": 5},
    ],
)
def test_a_fault_is_mended_by_a_reset(ask, driver, fault):
    answer, summary = ask(
        "rotated-tied", driver, [{**fault, "at": of_step(driver, fault["at"])}], lengths=(20,)
    )
    assert answer["same"] == [True]
    assert answer["states"] == ["ready"]
    npu = answer["npu"]
    assert (npu["faults"], npu["resets"], npu["fallbacks"]) == (1, 1, 0)
    assert summary.faults == 1


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("at", [2, 10])
@pytest.mark.parametrize(
    "kind", [{"kind": "lost"}, {"kind": "skipped"}, {"kind": "error", "errno": "EIO"}, {"kind": "gone"}]
)
def test_a_device_that_is_given_up_costs_no_answer(ask, driver, kind, at):
    faults = [{**kind, "at": of_step(driver, at), "times": 1 if kind["kind"] == "gone" else 1000}]
    answer, _ = ask("rotated-tied", driver, faults, lengths=(20, 33), again=2, tokens=3)
    assert answer["error"] is None
    assert all(answer["same"])
    assert all(answer["answered"])
    assert answer["states"] == ["failed"] * 4
    npu = answer["npu"]
    assert npu["fallbacks"] == 1
    assert npu["steps"] <= 2
    # Said once, however many requests follow.
    (said,) = warnings(answer)
    assert npu["reason"] in said
    assert "given up" in said or "No such device" in said
    assert "CPU from now on" in said


UNUSABLE = [
    ([{"kind": "denied", "times": 1000}], ["group render", "60-rockledge-npu.rules"]),
    ([{"kind": "locked", "times": 1000}], ["in use by another process"]),
    ([{"kind": "busy", "seconds": 3, "times": 1000}], ["another program", "fuser"]),
    ([{"kind": "refused", "errno": "ENOMEM", "at": 1}], ["less memory"]),
    ([{"kind": "refused", "errno": "EINVAL", "at": 40}], ["less memory"]),
    ([{"kind": "memory", "bytes": 1 << 20}], ["less memory"]),
    ([{"kind": "skipped", "times": 1000}], ["untouched"]),
]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("faults, words", UNUSABLE)
def test_what_cannot_be_used_is_said_once_and_the_cpu_answers(ask, driver, faults, words):
    answer, _ = ask("tied", driver, faults, lengths=(30, 40), tokens=2)
    assert answer["error"] is None
    assert all(answer["same"])
    assert all(answer["answered"])
    assert set(answer["states"]) == {"unusable"}
    (said,) = warnings(answer)
    for word in words:
        assert word in said
        assert word in answer["npu"]["reason"]
    assert "prefill runs on the CPU" in said
    assert answer["step_tokens"] == 256  # as without an NPU


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("faults, words", UNUSABLE)
def test_require_fails_with_the_reason(ask, driver, faults, words):
    answer, _ = ask("tied", driver, faults, lengths=(30,), npu="require")
    name, text = answer["error"]
    assert name == "NpuError"
    for word in ("required", *words):
        assert word in text
    assert warnings(answer) == []


@pytest.mark.parametrize("version", [(0, 8, 2), (0, 9, 9)])
def test_drivers_of_other_versions(ask, version):
    answer, _ = ask("tied", "rknpu", lengths=(30,), version=version)
    assert answer["same"] == [True]
    (said,) = warnings(answer)
    assert "0.9.2 to 0.9.8" in said
    answer, _ = ask("tied", "rknpu", lengths=(30,), version=version, npu="require")
    assert "0.9.2 to 0.9.8" in answer["error"][1]


@pytest.mark.parametrize("version", [(0, 9, 2), (0, 9, 5)])
def test_a_driver_that_hangs_boards_is_used_only_when_required(ask, version):
    answer, summary = ask("tied", "rknpu", lengths=(30,), version=version)
    assert answer["same"] == [True]
    assert summary.jobs == 0
    (warning,) = warnings(answer)
    assert "0.9.6 or newer" in warning
    answer, summary = ask("tied", "rknpu", lengths=(30,), version=version, npu="require")
    assert (answer["error"], answer["same"], answer["states"]) == (None, [True], ["ready"])
    assert summary.jobs > 0


@pytest.mark.parametrize("core, faults", [(0, 1), (1, 0), (2, 0)])
def test_what_runs_first_on_it_is_core_0_alone(ask, core, faults):
    first = {"kind": "lost", "at": 1, "core": core}
    answer, _ = ask("tied", "rknpu", [first], lengths=(30,), version=(0, 9, 3), npu="require")
    assert (answer["same"], answer["npu"]["cores"], answer["npu"]["faults"]) == ([True], 3, faults)


def test_the_oldest_trusted_driver_is_used(ask):
    answer, _ = ask("tied", "rknpu", lengths=(30,), version=(0, 9, 6))
    assert (answer["same"], answer["states"], warnings(answer)) == ([True], ["ready"], [])


def test_require_uses_it(ask):
    answer, _ = ask("tied", "rocket", lengths=(30,), npu="require")
    assert (answer["error"], answer["same"], answer["states"]) == (None, [True], ["ready"])
    answer, _ = ask("tied", "rocket", lengths=(30,), npu="require", npu_rows=None)
    assert "faster for every step" in answer["error"][1]


def test_off_opens_nothing(ask):
    answer, summary = ask("tied", "rknpu", lengths=(30,), npu="off")
    assert answer["same"] == [True]
    assert answer["states"] == ["off"]
    assert summary.files_opened == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_other_requests_write_while_the_npu_reads(worker, artifact_path, driver):
    """A job that the device takes its time for: tokens of another request come meanwhile."""
    order = {"order": "overlap", "path": str(artifact_path("rotated-tied")), "length": 64, "tokens": 60}
    faults = [{"kind": "late", "seconds": 0.4, "at": of_step(driver, 6)}]
    answer, _ = worker.tell({**order, "npu_rows": 2, "ctx": 512}, driver, faults)
    assert answer["text"]
    assert answer["other"]
    assert answer["npu"]["faults"] == 0
    assert sum(answer["meanwhile"]) > 10


@pytest.mark.parametrize("driver", DRIVERS)
def test_batches_read_there_and_write_here(worker, artifact_path, driver):
    order = {"order": "batch", "path": str(artifact_path("qk-norm")), "lengths": [40, 3, 70], "tokens": 5}
    answer, _ = worker.tell({**order, "npu": "require", "npu_rows": 2, "ctx": 512}, driver)
    assert answer["same"]
    # The prompts; steps of three rows are more than npu_rows and still the CPU's.
    assert 70 < answer["npu"]["rows"] <= 113


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("length", [20, 100])
def test_what_is_handed_over_is_what_the_time_formula_counts(worker, artifact_path, driver, length):
    told = {"order": "handed_over", "path": str(artifact_path("rotated-tied")), "length": length}
    answer, _ = worker.tell({**told, "npu": "require", "npu_rows": 2, "ctx": 1024}, driver)
    modelled, lanes, blocks = answer["modelled"], answer["lanes"], answer["blocks"]
    calls = sum(calls for calls, _ in modelled.values())
    size = sum(size for _, size in modelled.values())
    if driver == "rocket":  # waits for the end of a job with a page of each lane, which is not a sync of ours
        calls -= blocks * lanes
        size -= blocks * lanes * 4096
    assert answer["found"][0] == calls
    assert sum(answer["found"][1:]) == size
    # What is read comes back once; nothing else does.
    read = modelled["outputs"][1] if driver == "rknpu" else modelled["between"][1] - blocks * lanes * 4096
    assert read <= answer["found"][2] <= 1.1 * read


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("child", ["uses", "closes"])
def test_a_forked_process_leaves_the_device_to_its_parent(worker, artifact_path, driver, child):
    """It has the parent's buffers mapped and its handles open, but not the thread that waits for jobs."""
    told = {"order": "forked", "path": str(artifact_path("tied")), "length": 64, "child": child}
    settings = {"npu": "require", "npu_rows": 2, "ctx": 128}
    answer, summary = worker.tell({**told, **settings}, driver)
    assert (answer["same"], answer["child"]) == ([True, True], 0)
    npu = answer["npu"]
    assert (npu["state"], npu["steps"], npu["faults"]) == ("ready", 2, 0)
    assert (summary.files_left, summary.buffers_left, summary.crashes) == (0, 0, 0)
