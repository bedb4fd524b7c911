"""`rockledge doctor` finds and names the faults that were planted, and nothing in healthy artifacts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.doctor.conftest import FAMILIES
from tests.doctor.planting import TEXT, examined, planted, scaled

from rockledge.artifact import open_artifact
from rockledge.doctor.basis import find_basis
from rockledge.doctor.checks.truncation import check_truncation
from rockledge.doctor.diagnose import Diagnosis
from rockledge.doctor.finding import Finding
from rockledge.doctor.mend import rounded
from rockledge.doctor.specification import Arithmetic, Specification
from rockledge.doctor.stored_linear import StoredLinear
from rockledge.formats.bands import GROUP, Band
from rockledge.formats.packing import PackedLinear, pack, unpack_index
from rockledge.model.checkpoint import open_checkpoint
from rockledge.runtime import program

Models = dict[str, tuple[Path, Path]]


def the_alarm(found: Diagnosis, check: str, place: str) -> Finding:
    """The one alarm that is expected."""
    assert [(one.check, one.place) for one in found.alarms] == [(check, place)], found.alarms
    return found.alarms[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_doctor_has_no_alarm_for_a_healthy_artifact(family: str, models: Models) -> None:
    source, artifact = models[family]
    assert examined(artifact, source).alarms == []
    assert examined(artifact, None).alarms == []


@pytest.mark.parametrize(
    ("family", "role", "head", "factor"),
    [("llama", "q", 4, 2.0), ("llama", "v", 0, 1.5), ("qwen2", "k", 1, 0.5), ("gemma2", "k", 0, -1.0)],
)
def test_doctor_names_a_wrong_scale_in_one_head(
    family: str, role: str, head: int, factor: float, models: Models, tmp_path: Path
) -> None:
    source, artifact = models[family]
    name, rows = f"layers.1.attn.{role}", slice(16 * head, 16 * head + 16)
    changed = {name: scaled(open_artifact(artifact), name, rows, factor)}
    alarm = the_alarm(
        examined(planted(artifact, tmp_path / "sick", linears=changed), source), "row_scales", name
    )
    assert alarm.details["heads"] == [head]
    assert alarm.details["factor"] == pytest.approx(factor, rel=0.1)
    assert alarm.explained is not None
    assert f"head {head} " in alarm.cause


def test_doctor_names_weights_truncated_instead_of_rounded(models: Models, tmp_path: Path) -> None:
    source, artifact = models["llama"]
    opened, name = open_artifact(artifact), "layers.0.ffn.up"
    stored = Specification.of(opened).layer_weights(0)
    original = find_basis(opened, open_checkpoint(source)).layer(0, stored)["ffn.up"].numpy()
    sick = planted(artifact, tmp_path / "sick", linears={name: _truncated(opened.linear(name), original)})
    alarm = the_alarm(examined(sick, source), "truncation", name)
    assert "truncated (down)" in alarm.cause
    assert alarm.explained is not None
    assert alarm.explained > 0


def test_doctor_names_integers_truncated_toward_zero(models: Models, tmp_path: Path) -> None:
    source, artifact = models["llama"]
    opened = open_artifact(artifact)
    basis = find_basis(opened, open_checkpoint(source))
    original = basis.layer(1, Specification.of(opened).layer_weights(1))["attn.o"].numpy()
    wide = (Band(0, len(original), 8),)
    scale = np.abs(original).max(1) / np.float32(127)
    w8 = (original / scale[:, None]).astype(np.int8)  # a cast cuts off
    packed = pack(w8.view(np.uint8), np.zeros((len(w8), 6), np.uint8), {}, scale, wide)
    stored = torch.from_numpy(w8.astype(np.float32) * scale[:, None])
    linear = StoredLinear("layers.1.attn.o", packed, stored, torch.from_numpy(original), 0, (), None)
    (found,) = check_truncation(linear)
    assert "truncated (toward zero)" in found.cause
    fair = torch.from_numpy(np.rint(original / scale[:, None]) * scale[:, None])
    assert list(check_truncation(replace(linear, stored=fair))) == []


def _truncated(packed: PackedLinear, original: np.ndarray) -> PackedLinear:
    """The linear with the tables, indices and scales that it has, but with the largest entry that is not
    above a weight in place of the nearest."""
    codes = np.zeros(original.shape, np.uint8)
    index = np.zeros((packed.rows, -(-packed.cols // GROUP)), np.uint8)
    tables = {}
    for band, span in zip(packed.bands, packed.spans(), strict=True):
        rows, stream = (
            slice(band.start, band.start + band.rows),
            packed.index[span.index :][: span.index_bytes],
        )
        index[rows] = unpack_index(stream, band.rows, packed.cols)
        tables[band.bits] = packed.tables_of(band.bits)[:, : 1 << band.bits]
        entries = tables[band.bits].astype(np.float32)[np.repeat(index[rows], GROUP, 1)[:, : packed.cols]]
        below = entries <= (original[rows] / packed.scale[rows, None])[..., None]
        codes[rows] = np.maximum(below.sum(-1) - 1, 0)
    return pack(codes, index, tables, np.array(packed.scale), packed.bands)


def test_doctor_names_swapped_table_rows(models: Models, tmp_path: Path) -> None:
    source, artifact = models["llama"]
    name, packed = "layers.1.ffn.gate", open_artifact(artifact).linear("layers.1.ffn.gate")
    tables = np.array(packed.tables)
    tables[0, [0, 15]] = tables[0, [15, 0]]
    sick = planted(artifact, tmp_path / "sick", linears={name: replace(packed, tables=tables)})
    alarm = the_alarm(examined(sick, source), "tables", name)
    assert alarm.details["tables"] == [[0, 15], [15, 0]]
    assert "swapped" in alarm.cause


def test_doctor_names_swapped_entries_of_a_table(models: Models, tmp_path: Path) -> None:
    source, artifact = models["llama"]
    name, packed = "layers.0.attn.q", open_artifact(artifact).linear("layers.0.attn.q")
    bits = packed.bands[0].bits
    tables = np.array(packed.tables)
    tables[:, :, [1, (1 << bits) - 2]] = tables[:, :, [(1 << bits) - 2, 1]]
    sick = planted(artifact, tmp_path / "sick", linears={name: replace(packed, tables=tables)})
    assert "entries of tables" in the_alarm(examined(sick, source), "tables", name).cause


def test_doctor_names_a_hadamard_that_the_description_lacks(models: Models, tmp_path: Path) -> None:
    source, artifact = models["llama"]
    alarm = the_alarm(
        examined(planted(artifact, tmp_path / "sick", online={}), source), "described_turns", "rotation"
    )
    assert "a missing rotation: the weights need a Hadamard of 16 before ffn.down" in alarm.cause
    assert alarm.explained is not None
    assert alarm.explained > 0.5


def test_doctor_names_a_rotation_that_the_description_lacks(loud: tuple[Path, Path], tmp_path: Path) -> None:
    source, artifact = loud
    alarm = the_alarm(
        examined(planted(artifact, tmp_path / "sick", rotation=None), source), "described_turns", "rotation"
    )
    assert "a missing rotation: the weights are rotated" in alarm.cause
    assert alarm.explained is not None
    assert alarm.explained > 0.4


@pytest.mark.parametrize(
    ("role", "turn", "words"),
    [
        ("ffn.down", lambda t, r: _hadamard(t, 16), "the Hadamard that the runtime applies to its input"),
        (
            "attn.q",
            lambda t, r: torch.from_numpy(r.inverse(t.numpy())),
            "the rotation of the residual stream",
        ),
        ("attn.v", lambda t, r: _hadamard(t.T.contiguous(), 16).T.contiguous(), "the Hadamard within heads"),
    ],
)
def test_doctor_names_a_matrix_that_was_not_rotated(
    role: str, turn: Callable[..., torch.Tensor], words: str, models: Models, tmp_path: Path
) -> None:
    source, artifact = models["llama"]
    opened, name = open_artifact(artifact), f"layers.0.{role}"
    basis = find_basis(opened, open_checkpoint(source))
    original = basis.layer(0, Specification.of(opened).layer_weights(0))[role]
    unturned = rounded(turn(original, basis.model.rotation), opened.linears[name].bands, None)
    sick = planted(artifact, tmp_path / "sick", linears={name: unturned})
    alarm = the_alarm(examined(sick, source), "turns", name)
    assert f"a missing rotation: it was stored without {words}" in alarm.cause


def _hadamard(x: torch.Tensor, block: int) -> torch.Tensor:
    """By SciPy's matrix, which is Sylvester's too."""
    from scipy.linalg import hadamard

    matrix = torch.from_numpy(hadamard(block) / block**0.5).float()
    return (x.view(-1, block) @ matrix).view(x.shape)


def test_doctor_names_a_wrong_rope_base(loud: tuple[Path, Path], tmp_path: Path) -> None:
    source, artifact = loud
    sick = planted(artifact, tmp_path / "sick", config={"rope_theta": 500.0})
    alarm = the_alarm(examined(sick, source), "settings", "config.json: rope_theta")
    assert alarm.cause == "the RoPE base is 500, the reference has 10000"
    assert alarm.explained is not None
    assert alarm.explained > 0.3


def test_doctor_names_a_kv_scale_off_by_two_in_the_artifact(models: Models, tmp_path: Path) -> None:
    source, artifact = models["gemma2"]
    name = "layers.0.attn.v"
    changed = {name: scaled(open_artifact(artifact), name, slice(None), 2.0)}
    alarm = the_alarm(
        examined(planted(artifact, tmp_path / "sick", linears=changed), source), "row_scales", name
    )
    assert "every head" in alarm.cause
    assert alarm.details["factor"] == pytest.approx(2, rel=0.1)


def test_doctor_names_a_kv_scale_off_by_two_in_the_runtime(
    loud: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, artifact = loud
    right = program._scale  # scores are products with cached keys, times this
    monkeypatch.setattr(program, "_scale", lambda body: 2 * right(body))
    alarm = the_alarm(examined(artifact, source), "runtime", "CPU")
    assert "a KV scale off by two: cached keys are twice as large" in alarm.cause
    assert alarm.explained is not None
    assert alarm.explained > 0.5


def test_doctor_says_where_no_known_fault_explains_a_runtime(
    loud: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, artifact = loud
    right = program._scale
    monkeypatch.setattr(program, "_scale", lambda body: 9 * right(body))
    alarm = the_alarm(examined(artifact, None), "runtime", "CPU")
    assert "none of the known faults explains it" in alarm.cause


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (Arithmetic(key_scale=2.0), "a KV scale off by two: cached keys are twice as large"),
        (Arithmetic(value_scale=0.5), "a KV scale off by two: cached values are half as large"),
        (
            Arithmetic(lambda x, planes: _cut(x, planes)),
            "truncation for rounding: activations are cut off toward",
        ),
    ],
)
@pytest.mark.parametrize("reference", [True, False])
def test_doctor_names_a_runtime_with_a_wrong_rule(
    rules: Arithmetic, words: str, reference: bool, loud: tuple[Path, Path]
) -> None:
    source, artifact = loud
    cpu = Specification.of(open_artifact(artifact)).with_rules(rules).run(TEXT)
    alarm = the_alarm(examined(artifact, source if reference else None, cpu), "runtime", "CPU")
    assert words in alarm.cause
    assert (alarm.explained is None) != reference


def _cut(x: torch.Tensor, planes: int) -> torch.Tensor:
    """What a cast to int8 does where rounding was forgotten."""
    most = {1: 127, 2: 32512}[planes]
    largest = x.abs().amax(-1, keepdim=True)
    return (x * (most / largest)).to(torch.int32).float() * largest / most


def test_doctor_names_a_stale_eos(models: Models, tmp_path: Path) -> None:
    source, artifact = models["llama"]
    sick = planted(artifact, tmp_path / "sick", config={"eos": (7,)})
    alarm = the_alarm(examined(sick, source), "stop_tokens", "config.json: eos")
    assert "a stale EOS" in alarm.cause
    assert alarm.details == {"found": (7,), "expected": (2,)}
    alone = the_alarm(examined(sick, None), "stop_tokens", "config.json: eos")
    assert "the chat template ends an answer with 2 ('<|end|>')" in alone.cause
    assert alone.details["expected"] == (7, 2)


def test_doctor_names_a_wrong_chat_template(models: Models, tmp_path: Path) -> None:
    source, artifact = models["llama"]
    other = (
        b"{% for m in messages %}[{{ m.role }}] {{ m.content }}[/end]\n{% endfor %}"
        b"{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    sick = planted(artifact, tmp_path / "sick", files={"chat_template.jinja": other})
    found = examined(sick, source)
    alarm = the_alarm(found, "chat_template", "chat template")
    assert "a wrong chat template: it writes '[user]" in alarm.cause
    alone = the_alarm(examined(sick, None), "stop_tokens", "chat template")
    assert "'[/end]', which is not a special token" in alone.cause


def test_doctor_names_numbers_that_are_none(models: Models, tmp_path: Path) -> None:
    _, artifact = models["llama"]
    name = "layers.1.attn.o"
    changed = {name: scaled(open_artifact(artifact), name, slice(3, 5), float("nan"))}
    found = examined(planted(artifact, tmp_path / "sick", linears=changed), None)
    assert {(one.check, one.place) for one in found.alarms} == {("finite", name), ("finite", "logits")}


def test_doctor_names_a_gain_and_a_bias_of_another_model(models: Models, tmp_path: Path) -> None:
    source, artifact = models["qwen2"]
    opened, name = open_artifact(artifact), "layers.0.attn.k"
    packed = opened.linear(name)
    assert packed.bias is not None
    sick = planted(artifact, tmp_path / "sick", linears={name: replace(packed, bias=packed.bias * 1.5 + 0.5)})
    the_alarm(examined(sick, source), "biases", name)
    source, artifact = models["gemma2"]
    gain = {"layers.0.ffn.norm": np.array(open_artifact(artifact).array("layers.0.ffn.norm")) * 1.5}
    the_alarm(
        examined(planted(artifact, tmp_path / "gain", arrays=gain), source), "gains", "layers.0.ffn.norm"
    )


def test_doctor_names_another_tokenizer(models: Models, tmp_path: Path) -> None:
    source, artifact = models["llama"]
    text = open_artifact(artifact).files["tokenizer.json"].decode()
    other = text.replace('"H"', '"?"').replace('"T"', '"H"').replace('"?"', '"T"')
    sick = planted(artifact, tmp_path / "sick", files={"tokenizer.json": other.encode()})
    the_alarm(examined(sick, source), "tokenizer", "tokenizer.json")
