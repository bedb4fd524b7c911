"""Documents as files: which are found, and what their text is. Nothing ends in a traceback."""

import os
from pathlib import Path

import pytest

from rockledge.distillation.document_files import find_documents, read_document
from rockledge.distillation.documents import read_documents
from rockledge.errors import UsageError


def _files(folder: Path, **contents: str) -> None:
    for name, content in contents.items():
        place = folder / name.replace("__", "/").replace("_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content, encoding="utf-8")


def test_documents_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    _files(tmp_path, b_md="b", a__z_txt="z", a__b__c_html="c", B_pdf="p", x_png="x", y="y")
    found = find_documents(tmp_path)
    assert [name for name, _ in found.files] == ["B.pdf", "a/b/c.html", "a/z.txt", "b.md"]
    assert found.notes == ("Files of other endings left out: 1 .png, 1 without one.",)


def test_hidden_files_loops_and_second_links_are_left_out_with_their_names(tmp_path: Path) -> None:
    _files(tmp_path, a_md="a", sub__b_md="b")
    (tmp_path / ".hidden.md").write_text("h")
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "c.md").symlink_to(tmp_path / "a.md")
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere.md")
    found = find_documents(tmp_path)
    assert [name for name, _ in found.files] == ["a.md", "gone.md", "sub/b.md"]
    assert ".git, .hidden.md left out: hidden." in found.notes
    assert "c.md, sub/up left out: a link to what is there already." in found.notes
    read = read_documents([tmp_path])
    assert [document.text for document in read.documents] == ["a", "b"]
    assert any("gone.md cannot be read (no such file or directory)" in note for note in read.notes)


def test_files_of_a_folder_that_are_no_documents_are_left_out_by_name(tmp_path: Path) -> None:
    _files(tmp_path, a_md="good text", b_txt=" \n", c_txt="good  text", d_html="<nav>menu</nav>")
    (tmp_path / "e.txt").write_bytes(b"ab\0cd")
    (tmp_path / "f.txt").write_bytes(b"\xe9t\xe9")
    (tmp_path / "g.pdf").write_bytes(b"MZ not a pdf")
    os.mkfifo(tmp_path / "h.md")
    with open(tmp_path / "i.html", "wb") as huge:
        huge.truncate(64 << 20)
    (tmp_path / os.fsdecode(b"j\xff.md")).write_text("named in another encoding")
    read = read_documents([tmp_path])
    assert [document.place for document in read.documents] == ["a.md", "j?.md"]
    told = "\n".join(read.notes)
    for said in (
        "b.txt, d.html left out, empty.",
        "c.txt left out, said before.",
        "e.txt cannot be read (it holds zero bytes, as binary files do)",
        "f.txt cannot be read as UTF-8 text",
        "g.pdf cannot be read (it is not a PDF that PDFium can read",
        "h.md cannot be read (it is a pipe",
        "i.html has more than 33",
    ):
        assert said in told


def test_a_folder_without_documents_says_what_there_is(tmp_path: Path) -> None:
    _files(tmp_path, a_png="x")
    with pytest.raises(UsageError, match=r"holds no document .*other endings left out: 1 \.png"):
        read_documents([tmp_path])
    with pytest.raises(UsageError, match="cannot be read"):
        find_documents(tmp_path / "missing")


def test_markdown_and_text_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("\ufeffintro\n# The title\n\n    code\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("one\ntwo\n", encoding="utf-16")
    markdown, text = read_document(tmp_path / "a.md"), read_document(tmp_path / "b.txt")
    assert (markdown.title, markdown.text) == ("The title", "intro\n# The title\n\n    code\n")
    assert (text.title, text.text) == ("b", "one\ntwo\n")
