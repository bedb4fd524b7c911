"""Operators through librknnrt's C API, with a stand-in for the library that is compiled here."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rockledge.errors import NpuError, UsageError
from rockledge.export.vendor_device import VendorDevice

SOURCE = Path(__file__).parent / "vendor_stub.c"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "librknnrt.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(path)], check=True)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUB_CALLS", str(tmp_path / "calls"))
    operators = [
        {"name": name, "file": f"{name}.rknn", "inputs": 6, "outputs": outputs}
        for name, outputs in (("layers.0.attn.q", 6), ("layers.0.attn.k", 3))
    ]
    for one in operators:
        (tmp_path / str(one["file"])).write_bytes(b"model" * 3)
    (tmp_path / "rknn.json").write_text(json.dumps({"rows": 4, "operators": operators}))
    return tmp_path


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_an_operator_runs_by_the_public_calls_in_order(folder: Path, library: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    with VendorDevice(folder, library) as device:
        assert device.names == ("layers.0.attn.q", "layers.0.attn.k")
        np.testing.assert_array_equal(device.run("layers.0.attn.q", x), 2 * x)
        np.testing.assert_array_equal(device.run("layers.0.attn.q", 2 * x), 4 * x)
        assert device.versions("layers.0.attn.q") == ("stub 1", "0.9.8")
    once = ["rknn_inputs_set 1 0", "rknn_run 1 0", "rknn_outputs_get 1 11", "rknn_outputs_release 1 1"]
    first = calls(folder)[0].split()
    assert (first[0], first[1]) == ("rknn_init", "15")
    assert calls(folder)[1:] == ["rknn_query 1 0", *once, *once, "rknn_query 1 5", "rknn_destroy 1 0"]


def test_every_operator_has_a_context_that_is_given_back(folder: Path, library: Path) -> None:
    with VendorDevice(folder, library) as device:
        assert device.run("layers.0.attn.k", np.ones((4, 6), np.float32)).shape == (4, 3)
        device.run("layers.0.attn.q", np.ones((4, 6), np.float32))
    said = calls(folder)
    assert sum(call.startswith("rknn_init") for call in said) == 2
    assert sum(call.startswith("rknn_destroy") for call in said) == 2


FUNCTIONS = ("rknn_init", "rknn_query", "rknn_inputs_set", "rknn_run", "rknn_outputs_get")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_call_that_fails_is_named(
    function: str, folder: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_FAULT", function)
    with (
        VendorDevice(folder, library) as device,
        pytest.raises(NpuError, match=rf"layers.0.attn.q \({function} returned -6\)"),
    ):
        device.run("layers.0.attn.q", np.ones((4, 6), np.float32))


def test_bad_input_is_one_sentence(folder: Path, library: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not an export for the vendor's runtime"):
        VendorDevice(tmp_path / "none", library)
    with pytest.raises(NpuError, match="cannot be loaded"):
        VendorDevice(folder, tmp_path / "no.so")
    with pytest.raises(NpuError, match="cannot be loaded"):  # a library without these functions
        VendorDevice(folder, "libc.so.6")
    with VendorDevice(folder, library) as device:
        with pytest.raises(UsageError, match="there is no operator 'x'"):
            device.run("x", np.ones((4, 6), np.float32))
        with pytest.raises(UsageError, match=r"takes an input of \(4, 6\), not one of \(3, 6\)"):
            device.run("layers.0.attn.q", np.ones((3, 6), np.float32))
        (folder / "layers.0.attn.k.rknn").unlink()
        with pytest.raises(UsageError, match="cannot be read"):
            device.run("layers.0.attn.k", np.ones((4, 6), np.float32))
