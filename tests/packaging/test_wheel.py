"""The wheel of this machine's processor, installed where nothing else is."""

import json
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.model.checkpoints import random_model, write_gguf
from tests.packaging.conftest import ROOT
from tools.wheel import PACKAGES, check

import rockledge
from rockledge import Model
from rockledge.serve.console.files import ADDRESSES

PROMPT = "the quick brown fox"
PROCESSOR = platform.machine()


def bare_environment() -> dict[str, str]:
    """This process's environment without what would lead the new interpreter back to the source tree."""
    led_back = ("PYTHONPATH", "ROCKLEDGE_LIBRARY", "VIRTUAL_ENV", "PYTHONHOME")
    return {name: value for name, value in os.environ.items() if name not in led_back}


def bare_output(command: list[str | Path], folder: Path) -> str:
    """What `command` prints when it runs in `folder`, far from the source tree."""
    environment = bare_environment()
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=environment)
    return done.stdout


def files(wheel: Path) -> set[str]:
    """What a wheel holds, metadata apart."""
    with zipfile.ZipFile(wheel) as packed:
        return {name for name in packed.namelist() if ".dist-info/" not in name}


def test_a_bare_wheel_generates_what_the_source_tree_does(
    build_wheels: Callable[[str], list[Path]], toy: Path, tmp_path: Path
) -> None:
    wheel, laboratory = build_wheels(PROCESSOR)
    assert "-py3-none-manylinux_2_28_" in wheel.name
    assert {f"rockledge/serve/console/{name}" for name in ADDRESSES.values()} <= files(wheel)
    # Of the NPU a gateway holds what makes programs, and the bits they give; emulator, lint and the like are
    # the laboratory's.
    assert {name.split("/")[0] for name in files(wheel)} == {"rockledge"}
    assert {name.split("/")[2] for name in files(wheel) if name.startswith("rockledge/npu/")} == {
        "__init__.py", "arithmetic.py", "isa.py", "layout.py", "lut.py", "programs", "requantise.py",
        "stream.py", "virtual_npu.py"
    }  # fmt: skip
    source = ROOT / "npu_lab/src"
    modules = {str(path.relative_to(source)) for path in source.rglob("*.py")}
    extra = {PACKAGES[1].library, "rockledge_npu_lab/py.typed"}
    assert files(laboratory) == modules | extra
    with zipfile.ZipFile(laboratory) as packed:
        (about,) = (packed.read(name) for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
    assert f"Requires-Dist: rockledge=={rockledge.__version__}\n" in about.decode()
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    binaries = tmp_path / "venv" / "bin"
    install = [binaries / "python", "-m", "pip", "install", "-q", "-c", ROOT / "requirements.txt", wheel]
    subprocess.run(install, check=True, cwd=tmp_path, env=bare_environment())

    script = [ROOT / "tests/packaging/generate.py", toy, PROMPT, "6", tmp_path / "logits.npy"]
    answer = json.loads(bare_output([binaries / "python", *script], tmp_path))
    assert not answer["torch"]
    assert Path(answer["package"]).is_relative_to(tmp_path)
    with Model.load(toy, threads=1) as model:
        assert answer["text"] == model.generate(PROMPT, max_tokens=6)
        assert np.array_equal(np.load(tmp_path / "logits.npy"), model.engine.logits(model.tokens(PROMPT)))

    command = [binaries / "rockledge", "run", toy, PROMPT, "--raw", "--max-tokens", "4", "--json"]
    assert json.loads(bare_output(command, tmp_path))["completion_tokens"] == 4

    gguf = write_gguf(tmp_path / "tiny.gguf", random_model("llama3"))
    converted = [binaries / "rockledge", "run", gguf, "ab", "--raw", "--max-tokens", "2", "--json"]
    environment = {**bare_environment(), "ROCKLEDGE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(converted, check=True, capture_output=True, cwd=tmp_path, env=environment)
    assert "text" in json.loads(done.stdout)

    emulate = [binaries / "rockledge", "npu", "emulate", "--json", "--"]
    info = [binaries / "rockledge", "npu", "info"]
    told = subprocess.run([*emulate, *info], capture_output=True, text=True, env=bare_environment())
    assert told.returncode == 1
    assert "pip install ./npu_lab" in json.loads(told.stdout)["error"]
    install = [binaries / "python", "-m", "pip", "install", "-q", "--no-index", laboratory]
    subprocess.run(install, check=True, cwd=tmp_path, env=bare_environment())
    summary = json.loads(bare_output([*emulate, *info], tmp_path))
    assert (summary["driver"], summary["exit_code"]) == ("rknpu", 0)
    assert summary["jobs"] > 0


# A function whose newest version is glibc 2.29's, a library that not every machine has, and neither.
@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("#include <cmath>\ndouble f(double x) { return std::exp(x); }", "exp of glibc 2.29"),
        ("int *f() { return new int; }", "libstdc++.so.6"),
        ("int f() { return 1; }", None),
    ],
)
def test_what_would_not_load_on_an_old_glibc_is_named(
    source: str, complaint: str | None, tmp_path: Path
) -> None:
    (tmp_path / "f.cpp").write_text(source)
    library = tmp_path / "f.so"
    shared = ["g++", "-O2", "-fPIC", "-shared", "-Wl,--as-needed", "-o", library, tmp_path / "f.cpp"]
    subprocess.run(shared, check=True)
    with zipfile.ZipFile(tmp_path / "f.whl", "w") as wheel:
        wheel.write(library, PACKAGES[0].library)
    found = check(tmp_path / "f.whl", PROCESSOR, PACKAGES[0].library)
    assert (complaint in "; ".join(found)) if complaint else found == []


def test_a_wheel_without_the_core_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as wheel:
        wheel.writestr("rockledge/__init__.py", "")
    assert "no library" in check(tmp_path / "empty.whl", PROCESSOR, PACKAGES[0].library)[0]


def test_a_wheel_with_the_library_of_another_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "both.whl", "w") as wheel:
        for package in PACKAGES:
            wheel.writestr(package.library, "")
    assert PACKAGES[1].library in check(tmp_path / "both.whl", PROCESSOR, PACKAGES[0].library)[0]
