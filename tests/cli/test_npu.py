"""`rockledge npu` without the laboratory: four commands say in one sentence what to install."""

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from typing import Any

import pytest

from rockledge.cli import npu_demo


class _Missing(MetaPathFinder):
    """Answers as if the laboratory were not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "rockledge_npu_lab":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the laboratory."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rockledge_npu_lab"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing(), *sys.meta_path])


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(
    "words", [("emulate", "--", "true"), ("demo",), ("disasm", "words.bin"), ("verify", "cases.json")]
)
def test_a_command_of_the_laboratory_says_what_to_install(
    rockledge: Callable[..., Any], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npu_demo, "compressed", lambda *_: pytest.fail("the work came before the sentence"))
    done = rockledge("npu", *words)
    assert (done.code, done.out) == (1, "")
    (sentence,) = done.err.splitlines()
    assert "rockledge-npu-lab, which is not installed" in sentence
    assert "pip install ./npu_lab" in sentence


@pytest.mark.usefixtures("gateway")
def test_the_machine_s_own_npu_needs_no_laboratory(rockledge: Callable[..., Any]) -> None:
    done = rockledge("npu", "info", "--json")
    assert "usable" in done.json
