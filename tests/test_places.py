"""Where files lie, by the XDG Base Directory Specification 0.8 and by our own variable."""

from pathlib import Path

import pytest

from rockledge import places


@pytest.mark.parametrize(("given", "base"), [("/some/where", "/some/where"), ("relative", None), ("", None)])
def test_the_places_follow_xdg(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, base: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ROCKLEDGE_CACHE", raising=False)
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, given)
    assert places.chat_history() == Path(base or tmp_path / ".local/state") / "rockledge" / "chat_history"
    assert places.converted_models() == Path(base or tmp_path / ".cache") / "rockledge" / "converted"


def test_the_cache_has_a_variable_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    monkeypatch.setenv("ROCKLEDGE_CACHE", "~/mine")
    assert places.pulled_models() == tmp_path / "mine" / "pulled"
    assert places.demo_models().parent == tmp_path / "mine"


def test_a_home_that_does_not_exist_is_an_ordinary_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.expanded("~/a") == tmp_path / "a"
    assert places.expanded("~no-such-user/a") == Path("~no-such-user/a")
