"""`rockledge doctor`: what it prints, what it refuses, and what `--fix` leaves behind."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.doctor.planting import planted, scaled

from rockledge.artifact import open_artifact
from rockledge.cli import doctor_npu
from rockledge.conversion.convert import convert
from rockledge.model.checkpoint import open_checkpoint
from rockledge.synth import SHAPES, synth_checkpoint

Run = Callable[..., Any]
QUICK = ("--probes", 0, "--threads", 1, "--npu", "off")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def converted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healthy artifact of the toy checkpoint."""
    return convert(open_checkpoint(checkpoint), tmp_path_factory.mktemp("doctor") / "healthy")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Two short prompts, one of them messages."""
    path = tmp_path / "prompts.jsonl"
    path.write_text('Say it\n\n{"messages": [{"role": "user", "content": "Why?"}]}\n')
    return path


def test_doctor_of_a_healthy_artifact_says_so(
    rockledge: Run, converted: Path, checkpoint: Path, prompts: Path
) -> None:
    flags = ("--reference", checkpoint, "--prompts", prompts, "--threads", 1)
    done = rockledge("doctor", converted, *flags, "--probes", 1, "--json")
    assert done.code == 0
    body = done.json
    assert body["alarms"] == 0
    assert set(body["agreements"]) == {
        "specification and float model", "CPU and float model", "CPU and specification", "NPU and CPU",
    }  # fmt: skip
    assert body["agreements"]["NPU and CPU"]["identical"]
    assert body["agreements"]["CPU and specification"]["kl_mean_nats"] < 1e-5
    assert len(body["agreements"]["CPU and float model"]["first_divergence"]) == 2
    families = body["probes"]["families"]
    assert [one["probes"] for one in families] == [1] * 7 + [7]
    assert all(one["accuracy_ci95"][0] <= one["accuracy"] <= one["accuracy_ci95"][1] for one in families)
    operations = {one["operation"]: one for one in body["operations"]}
    assert operations["layers.1.ffn.down"]["snr_db"] > 10
    inputs = operations["inputs of layers.0.ffn.down"]
    assert {"headroom_bits", "at_end", "outlier_channel", "outlier_ratio", "first_token"} <= set(inputs)
    assert 0 < operations["cache of layers.0.attn"]["sink"] < 1
    # One operation after the other put back to float takes away what they cost together, more or less.
    assert 0.5 < sum(one["explained"] or 0 for one in body["operations"]) < 1.5
    people = rockledge("doctor", converted, *flags, *QUICK)
    assert "same top token" in people.out
    assert "ALARM" not in people.out


def test_doctor_without_a_reference_checks_what_it_can(
    rockledge: Run, converted: Path, tmp_path: Path
) -> None:
    healthy = rockledge("doctor", converted, *QUICK)
    assert healthy.code == 0
    assert "CPU and specification" in healthy.out
    sick = planted(converted, tmp_path / "sick", config={"eos": (5,)})
    found = rockledge("doctor", sick, *QUICK)
    assert found.code == 1
    assert "1. ALARM: config.json: eos\n   The chat template ends an answer with 2" in found.out


def test_doctor_mends_what_is_broken_and_proves_it(
    rockledge: Run, converted: Path, checkpoint: Path, prompts: Path, tmp_path: Path
) -> None:
    name, opened = "layers.1.attn.v", open_artifact(converted)
    packed = opened.linear("layers.0.ffn.gate")
    tables = np.array(packed.tables)
    tables[0, [1, 14]] = tables[0, [14, 1]]
    sick = planted(
        converted, tmp_path / "sick",
        linears={
            name: scaled(opened, name, slice(0, 16), 4.0), "layers.0.ffn.gate": replace(packed, tables=tables)
        },
        config={"eos": (9,), "rope_theta": 123.0}, online={},
        files={"chat_template.jinja": b"{{ messages }}"},
    )  # fmt: skip
    words = ("doctor", sick, "--reference", checkpoint, "--prompts", prompts, *QUICK, "--json")
    before = rockledge(*words)
    assert before.code == 1
    assert not (tmp_path / "sick-mended").exists()
    alarms = {one["check"] for one in before.json["findings"] if one["severity"] == "alarm"}
    assert {"row_scales", "tables", "settings", "stop_tokens", "chat_template", "described_turns"} <= alarms
    done = rockledge(*words, "--fix")
    assert done.code == 0
    fixed = done.json["fixed"]
    assert fixed["artifact"] == str(tmp_path / "sick-mended")
    assert fixed["alarms"] == 0
    assert fixed["kl_mean_nats_after"] < fixed["kl_mean_nats_before"] / 2
    mended, right = open_artifact(tmp_path / "sick-mended"), open_artifact(converted)
    mended.verify()
    assert mended.config == right.config
    assert mended.online == right.online
    assert mended.files["chat_template.jinja"] == right.files["chat_template.jinja"]
    assert np.allclose(mended.linear(name).scale, right.linear(name).scale, rtol=0.02)
    assert mended.report is not None
    assert name in mended.report["mended"]
    # What was not touched is the same bytes, and what is there is not overwritten.
    assert np.array_equal(mended.linear("layers.0.attn.q").codes, right.linear("layers.0.attn.q").codes)
    again = rockledge(*words, "--fix")
    assert again.code == 1
    assert "holds an artifact already" in again.json["error"]


def test_doctor_refuses_what_it_cannot_compare(
    rockledge: Run, converted: Path, checkpoint: Path, tmp_path: Path
) -> None:
    other = synth_checkpoint("toy", tmp_path / "other", seed=9)
    refused = rockledge("doctor", converted, "--reference", other, *QUICK)
    assert (refused.code, "is not what" in refused.err) == (2, True)
    forced = rockledge("doctor", converted, "--reference", other, *QUICK, "--force")
    assert (forced.code, "the embedding of" in forced.err) == (2, True)
    larger = synth_checkpoint(replace(SHAPES["toy"], vocab=320), tmp_path / "larger")
    refused = rockledge("doctor", converted, "--reference", larger, *QUICK, "--force")
    assert refused.code == 2
    assert "its vocab is 320, expected 300" in refused.err
    refused = rockledge("doctor", checkpoint, *QUICK)
    assert refused.code == 1
    assert "holds a checkpoint, expected an artifact" in refused.err
    cut = planted(converted, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((converted / "model.safetensors").read_bytes()[:-5000])
    refused = rockledge("doctor", cut, *QUICK)
    assert refused.code == 1
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\n \n", "has no prompts; write one a line"),
        (b'{"messages": []}\n', "line 1 of"),
        (b"\xff\n", "is not UTF-8"),
        (None, "could not be read"),
    ],
)
def test_doctor_says_what_is_wrong_with_prompts(
    text: bytes | None, said: str, rockledge: Run, converted: Path, tmp_path: Path
) -> None:
    path = tmp_path / "prompts"
    if text is not None:
        path.write_bytes(text)
    refused = rockledge("doctor", converted, "--prompts", path, *QUICK)
    assert refused.code == 2
    assert said in refused.err
    assert refused.err.count("\n") == 1


def test_doctor_says_that_the_laboratory_is_missing(
    rockledge: Run, converted: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("gone", name="rockledge_npu_lab")

    monkeypatch.setattr(doctor_npu, "_on_virtual_npu", missing)
    flags = ("--prompts", prompts, "--threads", 1)
    done = rockledge("doctor", converted, *flags, "--json")
    assert done.code == 0
    assert any("no package rockledge-npu-lab to emulate one" in note for note in done.json["notes"])
    required = rockledge("doctor", converted, *flags, "--npu", "require")
    assert required.code == 1
    assert "needs the Python package rockledge-npu-lab" in required.err


def test_doctor_names_an_npu_with_other_results(
    rockledge: Run, converted: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = doctor_npu._run

    def wrong(*arguments: Any) -> Any:
        logits, status = right(*arguments)
        logits[3:] += 0.25 * logits[3:].roll(1, -1)
        return logits, status

    monkeypatch.setattr(doctor_npu, "_run", wrong)
    done = rockledge("doctor", converted, "--prompts", prompts, "--threads", 1, "--json")
    assert done.code == 1
    (alarm,) = (one for one in done.json["findings"] if one["severity"] == "alarm")
    assert alarm["check"] == "npu"
    assert "the first after token 3" in alarm["cause"]
    assert json.dumps(done.json)
