"""The files of the console: all of them are in the package, name each other rightly, and need nobody else."""

import re
from importlib.resources import files

import pytest

from rockledge.serve.console.files import ADDRESSES, page_files

FOLDER = files("rockledge.serve.console")
TEXTS = {address: content.decode() for address, (content, _) in page_files().items()}


def test_every_file_of_the_folder_is_served_and_no_other() -> None:
    there = {entry.name for entry in FOLDER.iterdir() if entry.is_file() and not entry.name.endswith(".py")}
    assert set(ADDRESSES.values()) == there


def test_what_the_files_refer_to_is_there() -> None:
    named = {f"/{name}" for name in re.findall(r'(?:src|href)="([^#"][^"]*)"', TEXTS["/"])}
    assert "/console/console.js" in named
    for text in TEXTS.values():
        imported = re.findall(r'^import .* from "\./([\w.]+)";', text, re.MULTILINE)
        named |= {f"/console/{name}" for name in imported}
    assert named | {"/"} == set(ADDRESSES)


MARKUP = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "@import")
INLINE = re.compile(r'\son\w+="|\sstyle="|<style|<script(?! src=| type="module" src=)|javascript:')


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_is_fetched_from_elsewhere_or_turned_into_markup(address: str) -> None:
    text = TEXTS[address]
    assert set(re.findall(r"\w+://[\w./-]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not [dangerous for dangerous in MARKUP if dangerous in text]
    assert not INLINE.search(text)


def test_what_the_scripts_look_for_is_on_the_page() -> None:
    there = set(re.findall(r'\bid="([\w-]+)"', TEXTS["/"]))
    wanted = {name for text in TEXTS.values() for name in re.findall(r'byId\("([\w-]+)"\)', text)}
    assert wanted <= there
    labelled = set(re.findall(r'\bfor="([\w-]+)"', TEXTS["/"]))
    assert labelled <= there
