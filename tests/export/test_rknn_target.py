"""`--to rknn` with a stand-in for the vendor's toolkit (toolkit_stub/), in a process of its own."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.export.artifacts import converted, held, without_head

from rockledge.errors import UsageError
from rockledge.export import rknn_toolkit
from rockledge.export.request import ExportRequest
from rockledge.export.rknn_toolkit import ToolkitError
from rockledge.export.targets import export
from rockledge.tensor_file import read_header

STUB = Path(__file__).parent / "toolkit_stub"


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The Python of an environment with the stand-in; its calls go to tmp_path/calls."""
    return environment(tmp_path, monkeypatch, STUB)


def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: Path) -> str:
    monkeypatch.setenv("STUB_CALLS", str(tmp_path / "calls"))
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    return str(program)


def calls(tmp_path: Path) -> list[tuple[str, dict[str, Any]]]:
    return [tuple(json.loads(line)) for line in (tmp_path / "calls").read_text().splitlines()]  # type: ignore[misc]


# What else the forms have is the same to a graph.
@pytest.mark.parametrize("name", ["gemma2", "olmo2", "phi3", "smollm3", "llama-biases", "ministral3"])
def test_whole_layers_compute_what_the_artifact_does(name: str, tmp_path: Path, python: str) -> None:
    """Layers with int8 inputs and outputs of every linear stay near the float ones, in all forms."""
    path = converted(held(name), tmp_path / "artifact")
    written = export(path, tmp_path / "out", "rknn", ExportRequest("", 128, python, blocks=True))
    assert [one["kind"] for one in written.report["operators"]] == ["block"] * 4 + ["linear"]
    assert all(one["scales"] == "the artifact's" for one in written.report["operators"])
    assert all(one["cosine"] > 0.99 for one in written.report["operators"])
    assert 0 < written.report["cost"]["w8a8, simulated"]["kl_mean_nats"] < 0.1
    assert written.notes == ()


def test_linears_are_operators_of_their_own(tmp_path: Path, python: str) -> None:
    path = converted(without_head(held("llama-biases")), tmp_path / "artifact")
    written = export(path, tmp_path / "out", "rknn", ExportRequest("", 128, python))
    operators = written.report["operators"]
    assert len(operators) == 4 * 7 + 1
    assert all(one["cosine"] > 0.999 for one in operators)
    out = tmp_path / "out"
    assert {one["file"] for one in operators} == {file.name for file in out.glob("*.rknn")}
    assert set(read_header(out / "host.safetensors").entries) == {"embed", "final_norm"}
    assert not list(out.glob(".toolkit*"))
    check = np.load(out / "check.npz")
    assert check["x"].shape == (64, 64)
    said = calls(tmp_path)
    assert [call for call, _ in said[:6]] == [
        "RKNN", "config", "load_onnx", "build", "export_rknn", "init_runtime",
    ]  # fmt: skip
    assert said[1][1] == {"target_platform": "rk3588", "quantized_dtype": "w8a8"}
    assert said[3][1] == {"do_quantization": False, "texts": 0}
    assert {"Conv", "QuantizeLinear"} <= set(said[2][1]["operations"])


def test_sixteen_bits_are_rounded_by_the_toolkit(tmp_path: Path, python: str) -> None:
    path = converted(held("llama-biases"), tmp_path / "artifact")
    request = ExportRequest("w16a16i_dfp", 0, python, blocks=True)
    written = export(path, tmp_path / "out", "rknn", request)
    assert written.report["cost"] is None
    assert {one["scales"] for one in written.report["operators"]} == {"the toolkit's"}
    builds = [arguments for call, arguments in calls(tmp_path) if call == "build"]
    assert builds == [{"do_quantization": True, "texts": 1}] * 5
    assert not [call for call, _ in calls(tmp_path) if call == "inference"]


def test_a_graph_that_is_refused_gets_the_toolkits_scales(
    tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_FAULT", "refuse codes")
    path = converted(held("llama-biases"), tmp_path / "artifact")
    written = export(path, tmp_path / "out", "rknn", ExportRequest("", 64, python, blocks=True))
    assert len(written.notes) == 5
    assert "build returned -1" in written.notes[0]
    assert {one["scales"] for one in written.report["operators"]} == {"the toolkit's"}


@pytest.mark.parametrize(
    "fault, said",
    [
        ("refuse", r"refuses layers.0.attn.q \(RuntimeError: build returned -1\)"),
        ("die", r"ended while it made layers.0.attn.q \(exit code 11; the last words\)"),
        ("hang", r"was not done with layers.0.attn.q after 3 s"),
    ],
)
def test_a_toolkit_that_fails_leaves_nothing(
    fault: str, said: str, tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_FAULT", fault)
    monkeypatch.setattr(rknn_toolkit.Toolkit.__init__, "__defaults__", (3.0,))
    path = converted(held("llama-biases"), tmp_path / "artifact")
    with pytest.raises(ToolkitError, match=said):
        export(path, tmp_path / "out", "rknn", ExportRequest("", 64, python))
    assert sorted(os.listdir(tmp_path)) == ["artifact", "calls", "python"]


def test_an_environment_without_the_toolkit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(rknn_toolkit.VARIABLE, raising=False)
    with pytest.raises(UsageError, match="--rknn-python or ROCKLEDGE_RKNN_PYTHON"):
        rknn_toolkit.find_toolkit(None)
    with pytest.raises(UsageError, match="cannot be run as a Python"):
        rknn_toolkit.find_toolkit(str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"has no rknn-toolkit2, expected version 2\.5\.0"):
        rknn_toolkit.find_toolkit(sys.executable)
    older = tmp_path / "packages" / "rknn_toolkit2-2.3.2.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: rknn-toolkit2\nVersion: 2.3.2\n")
    monkeypatch.setenv(rknn_toolkit.VARIABLE, environment(tmp_path, monkeypatch, older.parent))
    with pytest.raises(UsageError, match=r"has rknn-toolkit2 2\.3\.2, expected 2\.5\.0"):
        rknn_toolkit.find_toolkit(None)
