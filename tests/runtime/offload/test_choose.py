"""The NPU's mode on a chip that programs are not for: nothing is opened, and the reason is told."""

import pytest

from rockledge.errors import NpuError
from rockledge.runtime.offload import choose
from rockledge.runtime.offload.choose import choose_npu
from rockledge.runtime.offload.status import NpuStatus
from rockledge.synth import shape_config


def chosen(mode: str) -> object:
    return choose_npu(
        mode,
        (),
        shape_config("toy"),
        context=512,
        weights=0,
        others=lambda rows: 0,
        memory=None,
        from_rows=None,
    )


@pytest.fixture
def another_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NpuError("this is an RK3576")

    def opened(*arguments: object, **named: object) -> None:
        raise AssertionError("the device was opened")

    monkeypatch.setattr(choose, "this_board", refuse)
    monkeypatch.setattr(choose, "open_npu", opened)


@pytest.mark.usefixtures("another_chip")
def test_auto_goes_on_without_it() -> None:
    status = chosen("auto")
    assert isinstance(status, NpuStatus)
    assert (status.state, status.reason) == ("unusable", "this is an RK3576")


@pytest.mark.usefixtures("another_chip")
def test_require_fails_with_the_reason() -> None:
    with pytest.raises(NpuError, match="this is an RK3576"):
        chosen("require")
