"""The whole way with a scripted teacher: what is written, what is dropped, and kills at any moment."""

import json
import os
import resource
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.distillation.pair import made_model

from rockledge.artifact.publish import UnwritableError
from rockledge.cli.main import main
from rockledge.distillation.documents import read_documents
from rockledge.distillation.model_directory import small_files
from rockledge.distillation.question_answer.journal import Output
from rockledge.distillation.question_answer.synthesize import Synthesized, synthesize
from rockledge.distillation.settings import settings
from rockledge.errors import ArtifactError, RockledgeError, UsageError
from rockledge.model.tokenizer import Tokenizer

THINGS = ["spindle", "coolant", "gantry", "turret", "probe", "lathe", "feeder", "clamp"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("writer") / "teacher"
    made_model(place, hidden=16, layers=1, seed=3, context=4096)
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "documents"
    place.mkdir()
    for number, thing in enumerate(THINGS):
        (place / f"{thing}.md").write_text(
            f"# The {thing}\n\nThe {thing} is started by code M{number}0, stopped by code M{number}1. Once "
            f"started, the operator closes the {thing} door, and checks that the {thing} lamp is green.\n"
        )
    (place / "empty.txt").write_text("\n")
    (place / "copy.md").write_text((place / "probe.md").read_text())
    return place


class Script:
    """A teacher that answers each kind of question about a thing in its own way, well or badly."""

    def __init__(self, teacher: Path, stop_after: int = 1 << 30) -> None:
        self._tokenizer = Tokenizer.from_files(small_files(teacher))
        self.calls, self._stop_after = 0, stop_after

    def __call__(self, batch: Sequence[Sequence[int]], seed: str, most: int) -> list[Output]:
        if self.calls == self._stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        return [self._answer(self._tokenizer.decode(ids)) for ids in batch]

    def _answer(self, prompt: str) -> Output:
        assert "Question: ..." in prompt
        thing = next(thing for thing in THINGS if f"The {thing} is started" in prompt)
        code = prompt.split("started by code ")[1].split()[0]
        ways: dict[str, Output] = {
            "a fact": (f"Question: Which code starts the {thing}?\nAnswer: Code {code} starts it.", True),
            "how something": (
                f"**Question:** How is the {thing} started?\n**Answer:** By code {code}.",
                True,
            ),
            "what something is": (
                f"Question: Which code starts the {thing} ?\nAnswer: It is code {code}.",
                True,
            ),
            "when or why": (
                f"Question: When is the {thing} lamp red?\nAnswer: Whenever 77 pumps overheat.",
                True,
            ),
            "a problem": (f"Question: Why is the {thing} door closed?\nAnswer: The operator clo", False),
            "a limit": ("I cannot help with that.", True),
        }
        return next(
            output
            for kind, output in ways.items()
            if f"question that asks {kind}" in prompt or kind in prompt
        )


def made(teacher: Path, folder: Path, out: Path, write: Callable[..., Any], **values: Any) -> Synthesized:
    chosen = {"documents": [str(folder)], "synthesize": 1000, "held_out_share": 0.2, "synthesize_batch": 3}
    return synthesize(teacher, out, settings({**chosen, **values}), write=write)


def lines(path: Path | None) -> list[dict[str, Any]]:
    assert path is not None
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_as_many_as_the_documents_give_and_every_dropped_one_has_a_reason(
    teacher: Path, folder: Path, tmp_path: Path
) -> None:
    found = made(teacher, folder, tmp_path / "pairs", Script(teacher))
    train, apart = lines(found.train), lines(found.held_out)
    # Of six kinds two are good, one repeats the first, three are of no use.
    assert len(train) + len(apart) == 2 * len(THINGS)
    assert found.numbers["dropped"] == {
        "question asked before": 8,
        "answer not from the passage": 8,
        "cut off before its end": 8,
        "not a question and an answer": 8,
    }
    assert "That is all that it could: 1000 were asked for" in found.sentence
    notes = "\n".join(found.numbers["notes"])
    assert "empty.txt left out, empty" in notes
    assert "probe.md left out, said before" in notes
    first = train[0]
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"]
    assert first["source"].removesuffix(".md") in first["messages"][0]["content"]
    assert first["messages"][1]["content"].rstrip(".").split()[-1] in first["passage"] or "starts" in str(
        first
    )


def test_no_document_is_on_both_sides(teacher: Path, folder: Path, tmp_path: Path) -> None:
    book = "\n\n".join((folder / f"{thing}.md").read_text() for thing in THINGS[:4])
    (folder / "book.md").write_text(book)
    found = made(teacher, folder, tmp_path / "pairs", Script(teacher))
    train, apart = lines(found.train), lines(found.held_out)
    sources = [{one["source"] for one in side} for side in (train, apart)]
    assert sources[0]
    assert sources[1]
    assert not sources[0] & sources[1]
    together = {f"{thing}.md" for thing in THINGS[:4]} | {"book.md"}
    assert together & sources[0] == set() or together & sources[1] == set()
    assert set(found.numbers["held_out_documents"]) >= sources[1]
    digests = {document.place: document.digest for document in read_documents([folder]).documents}
    assert found.held_out_documents == {digests[name] for name in found.numbers["held_out_documents"]}


def test_so_many_as_wanted_and_readable_as_data(teacher: Path, folder: Path, tmp_path: Path) -> None:
    found = made(teacher, folder, tmp_path / "pairs", Script(teacher), synthesize=10)
    assert (found.numbers["train"], found.numbers["held_out"]) == (8, 2)
    assert len(read_documents([found.train]).documents) == 8
    script = Script(teacher)
    assert made(teacher, folder, tmp_path / "pairs", script, synthesize=10) == found
    assert script.calls == 0
    with pytest.raises(ArtifactError, match="add --overwrite"):
        made(teacher, folder, tmp_path / "pairs", script, synthesize=11)


def test_one_document_holds_out_its_last_passages(teacher: Path, tmp_path: Path) -> None:
    text = "".join(
        f"## About the {thing}\n\nThe {thing} is started by code M{n}0. The operator closes the {thing} door "
        f"with care and waits until the {thing} lamp is green, and then presses the {thing} button twice.\n\n"
        f"Whoever leaves the {thing} without stopping it finds that the {thing} stops by itself later.\n\n"
        for n, thing in enumerate(THINGS)
    )
    (tmp_path / "book.md").write_text(text)
    found = made(teacher, tmp_path / "book.md", tmp_path / "pairs", Script(teacher))
    assert {one["passage"] for one in lines(found.train)} & {
        one["passage"] for one in lines(found.held_out)
    } == set()
    assert any("last passages are held out" in note for note in found.numbers["notes"])
    assert not found.held_out_documents


@pytest.mark.parametrize("calls", [0, 1, 7])
def test_a_stopped_run_goes_on_to_the_same_pairs(
    calls: int, teacher: Path, folder: Path, tmp_path: Path
) -> None:
    whole = made(teacher, folder, tmp_path / "whole", Script(teacher))
    out = tmp_path / "pairs"
    with pytest.raises(KeyboardInterrupt):
        made(teacher, folder, out, Script(teacher, calls))
    assert not out.exists()
    journal = tmp_path / ".pairs.pairs.jsonl"
    with open(journal, "ab") as file:
        file.write(b'{"batch": 0, "outputs": [["half a li')  # the kill came while it was written
    script = Script(teacher)
    found = made(teacher, folder, out, script)
    assert [path.read_bytes() for path in (found.train, out / "held-out.jsonl", out / "report.json")] == [
        (tmp_path / "whole" / name).read_bytes() for name in ("train.jsonl", "held-out.jsonl", "report.json")
    ]
    assert script.calls == 16 - calls  # 7 + 1 documents, six kinds, three at a time
    assert not journal.exists()
    assert whole.numbers == found.numbers


def test_another_run_does_not_take_what_a_stopped_one_wrote(
    teacher: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        made(teacher, folder, tmp_path / "pairs", Script(teacher, 2))
    with pytest.raises(UsageError, match="an unfinished run with another seed; give the same command"):
        made(teacher, folder, tmp_path / "pairs", Script(teacher), seed=1)


def test_a_full_disk_keeps_what_was_there(teacher: Path, folder: Path, tmp_path: Path) -> None:
    whole = made(teacher, folder, tmp_path / "whole", Script(teacher))
    journal = tmp_path / ".pairs.pairs.jsonl"
    with pytest.raises(KeyboardInterrupt):
        made(teacher, folder, tmp_path / "pairs", Script(teacher, 2))
    before = journal.read_bytes()
    # A limit of the size of files stands in for a disk: the kernel fails writes in the same place.
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, limits[1]))
    try:
        with pytest.raises(UnwritableError, match="what is there is kept: free some space"):
            made(teacher, folder, tmp_path / "pairs", Script(teacher))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert journal.read_bytes() == before
    assert made(teacher, folder, tmp_path / "pairs", Script(teacher)).numbers == whole.numbers


def test_a_teacher_that_writes_no_pair_is_said(teacher: Path, folder: Path, tmp_path: Path) -> None:
    def silent(batch: Sequence[Sequence[int]], seed: str, most: int) -> list[Output]:
        return [("", True)] * len(batch)

    with pytest.raises(RockledgeError, match="none of the 48 outputs of the teacher could be used"):
        made(teacher, folder, tmp_path / "pairs", silent)
    assert not (tmp_path / "pairs").exists()


def test_places_that_lie_in_each_other_and_short_documents_are_said(
    teacher: Path, folder: Path, tmp_path: Path
) -> None:
    script = Script(teacher)
    with pytest.raises(UsageError, match="lie in each other"):
        made(teacher, folder, folder / "pairs", script)
    short = tmp_path / "short"
    short.mkdir()
    (short / "a.txt").write_text("few words")
    with pytest.raises(UsageError, match="no document with enough text"):
        made(teacher, short, tmp_path / "pairs", script)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="does not hold questions and answers"):
        made(teacher, folder, tmp_path / "taken", script)
    assert os.listdir(tmp_path / "taken") == ["letter.txt"]
    assert script.calls == 0


@pytest.mark.parametrize("values", [{"synthesize": 3}, {"documents": ["x"]}])
def test_documents_and_their_number_go_together(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="give both"):
        settings(values)


@pytest.fixture
def scripted(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script(teacher)
    monkeypatch.setattr("rockledge.distillation.question_answer.synthesize._model", lambda *_: script)
    return script


def test_the_command_teaches_what_was_written_and_no_text_of_held_out_documents(
    teacher: Path, folder: Path, tmp_path: Path, scripted: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    made_model(tmp_path / "student", hidden=16, layers=1, seed=4)
    words = ["distill", str(teacher), str(tmp_path / "student"), "-o", str(tmp_path / "out"), "--json"]
    words += ["--documents", str(folder), "--synthesize", "12", "--data", str(folder), "--tokens", "200"]
    words += ["--sequence", "40", "--batch", "2", "--held-out-share", "0.2"]
    assert main(words) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    pairs = tmp_path / "out-pairs"
    numbers = json.loads((pairs / "report.json").read_text())
    held = len(numbers["held_out_documents"])
    assert held
    assert f"Of the documents {held} are left out: questions about them are held out." in notes
    assert any(note.startswith("The teacher wrote 12 questions and answers") for note in notes)
    assert (tmp_path / "out" / "report.md").is_file()
    calls = scripted.calls
    assert main([*words, "--overwrite"]) == 0
    assert scripted.calls == calls


def test_the_command_alone_writes_pairs_or_says_what_it_would_ask(
    teacher: Path, folder: Path, tmp_path: Path, scripted: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", str(teacher), "--documents", str(folder), "--synthesize", "6"]
    assert main([*words, "--dry-run", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert sum(body["passages"].values()) == body["documents"] == len(THINGS)
    assert scripted.calls == 0
    assert main([*words, "-o", str(tmp_path / "pairs")]) == 0
    assert "The teacher wrote 6 questions and answers from 8 documents" in capsys.readouterr().out


def test_what_is_wrong_with_a_student_is_said_before_the_teacher_writes(
    teacher: Path, folder: Path, tmp_path: Path, scripted: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    made_model(tmp_path / "student", hidden=16, layers=1, seed=4)
    (tmp_path / "student" / "chat_template.jinja").unlink()
    words = ["distill", str(teacher), str(tmp_path / "student"), "-o", str(tmp_path / "out")]
    words += ["--documents", str(folder), "--synthesize", "4", "--sequence", "40"]
    assert main(words) == 2
    assert "has no chat template, so it cannot learn questions and answers" in capsys.readouterr().err
    assert scripted.calls == 0
