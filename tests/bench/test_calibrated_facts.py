"""A facts file beside the model of its board: what is inside its range, and what becomes of predictions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.board_validation import main
from bench.calibrated_facts import MODELS, body, compared, predictions, reference
from rockledge.board.boards import find_board
from rockledge.board.facts_file import REQUIRED, Measured, MeasuredFacts, Npu, text

KNOWN = find_board("rk3588-8gb")


def measured(name: str, value: float) -> Measured:
    fact = KNOWN.facts.get(name)
    return Measured(value, fact.unit if fact else "s", "as it was", (value, value), 5)


FACTS = MeasuredFacts(
    "0.1.0", "ROCK 5B", "6.1", 4, 8 << 30, "rk3588",
    {name: measured(name, KNOWN.value(name)) for name in REQUIRED}
    | {"cpu_step_seconds": measured("cpu_step_seconds", 5e-5)},
)  # fmt: skip


def test_every_constant_is_inside_or_outside() -> None:
    facts = replace(
        FACTS,
        facts={
            **FACTS.facts,
            "cpu_hz": measured("cpu_hz", 2.35e9),
            "cpu_read_bandwidth": measured("cpu_read_bandwidth", 12e9),
            "cpu_norm_cycles": measured("cpu_norm_cycles", 1.2 * KNOWN.value("cpu_norm_cycles")),
        },
    )
    found = {one.name: one for one in compared(facts, reference(facts))}
    assert found["cpu_hz"].inside is True  # published: 2.2 to 2.4 GHz
    assert (found["cpu_hz"].low, found["cpu_hz"].high) == (2.2e9, 2.4e9)
    assert found["cpu_read_bandwidth"].inside is False
    assert found["cpu_norm_cycles"].inside is False  # a single figure: 10 % either way
    assert found["cpu_rope_cycles"].inside is True
    assert (found["cpu_step_seconds"].inside, found["cpu_step_seconds"].kind) == (None, "not modelled")


def test_half_the_bandwidth_is_half_the_speed() -> None:
    half = replace(FACTS, facts={**FACTS.facts, "cpu_read_bandwidth": measured("cpu_read_bandwidth", 12e9)})
    for same, slow in zip(predictions(FACTS, KNOWN), predictions(half, KNOWN), strict=True):
        assert same.decode_measured == pytest.approx(same.decode)
        assert slow.decode == same.decode
        assert slow.decode_measured == pytest.approx(same.decode / 2, rel=0.15)


def test_a_virtual_npu_is_left_out_and_an_unknown_chip_named() -> None:
    npu = Npu("rknpu", "0.9.8", 3, True, {"npu_submit_seconds": measured("npu_submit_seconds", 1.0)})
    virtual = replace(FACTS, npu=npu)
    assert not any(one.name == "npu_submit_seconds" for one in compared(virtual, KNOWN))
    real = replace(FACTS, npu=replace(npu, virtual=False))
    (found,) = (one for one in compared(real, KNOWN) if one.name == "npu_submit_seconds")
    assert found.inside is False
    unknown = body(replace(FACTS, chip=""))
    assert (unknown["compared_with"], unknown["chip_known"]) == ("rk3588-8gb", False)


def test_a_chip_that_is_refused_and_one_that_nobody_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its constants are compared all the same; the command predicts nothing where nothing of ours runs."""
    refused = replace(FACTS, chip="rk3576")
    assert body(refused)["predictions"] == []
    assert any(one["name"] == "cpu_hz" for one in body(refused)["constants"])
    assert body(replace(FACTS, chip="rk9999"))["chip_known"] is False
    file = tmp_path / "facts.json"
    for facts, said in ((refused, "no int8 dot product"), (replace(FACTS, chip="rk9999"), "is not known")):
        file.write_text(text(facts))
        main([str(file)])
        assert said in capsys.readouterr().out


def test_the_command_reads_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "facts.json"
    file.write_text(text(FACTS))
    main([str(file)])
    shown = capsys.readouterr().out
    assert "compared with rk3588-8gb" in shown
    assert all(model in shown for model in MODELS)
    main([str(file), "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(body(FACTS)))
    file.write_text("{}")
    with pytest.raises(SystemExit, match="expected a file of facts"):
        main([str(file)])
