"""Fetching for benches: a pinned file is fetched once, and a wrong one is refused."""

import hashlib
from pathlib import Path

import pytest

from bench import models


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKLEDGE_CACHE", str(tmp_path / "cache"))


def test_a_file_is_fetched_once_and_again_when_damaged() -> None:
    fetched = []

    def fetch(folder: Path) -> bytes:
        fetched.append(folder)
        return b"content"

    digest = hashlib.sha256(b"content").hexdigest()
    path = models._cached("a/b.txt", digest, fetch)
    assert path.read_bytes() == b"content"
    assert models._cached("a/b.txt", digest, fetch) == path
    assert len(fetched) == 1
    path.write_bytes(b"damaged")
    models._cached("a/b.txt", digest, fetch)
    assert len(fetched) == 2
    assert path.read_bytes() == b"content"


def test_another_version_is_refused() -> None:
    with pytest.raises(models.UnavailableError, match="SHA-256"):
        models._cached("a.txt", "0" * 64, lambda folder: b"something else")
    assert not (models.cache() / "a.txt").exists()


def test_handbook_pages_become_plain_text(tmp_path: Path) -> None:
    page = """<html><head><title>Book</title></head><body><p id="title">Bar</p>
    <ul class="docnav"><li class="previous"><a href="no.html">Prev</a></li>
    <li class="next"><a href="{next}">N</a></li></ul>
    <div><div class="titlepage"><h1>{title}</h1></div><div class="para">One <em>two</em>
       three.</div><pre>a
  b</pre><ul><li>item</li></ul></div><ul class="docnav"><li class="next"><a href="{next}">Next</a></li></ul>
    </body></html>"""
    (tmp_path / "1.html").write_text(page.format(next="2.html", title="First"))
    (tmp_path / "2.html").write_text(page.format(next="1.html", title="Second"))
    body = "One two three.\n\na\n  b\n\nitem\n\n"
    text = models._read_pages(tmp_path, "1.html", 1 + len(f"First\n\n{body}"))
    assert text == f"First\n\n{body}S"
