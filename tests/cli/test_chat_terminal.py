"""`rockledge chat` in a real terminal: a pseudo-terminal with a screen, a toy artifact, scripted answers."""

import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.terminal_window import SCRIPTED, Window

from rockledge import Model

Chat = Callable[..., Window]
UP, LEFT, CTRL_C, CTRL_D, ALT_ENTER = "\x1b[A", "\x1b[D", "\x03", "\x04", "\x1b\r"


@pytest.fixture
def chat(artifact: Path, tmp_path: Path) -> Iterator[Chat]:
    """`chat([answer, ...], flags...)` is a window at its first prompt; an answer is a list of pieces."""
    opened: list[Window] = []

    def start(answers: list[Any], *flags: str, columns: int = 80, **environment: str) -> Window:
        script = tmp_path / f"answers-{len(opened)}.json"
        script.write_text(json.dumps(answers))
        arguments = [str(SCRIPTED), str(script), "chat", str(artifact), "--threads", "1", *flags]
        settings = {"XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "xterm-256color", **environment}
        opened.append(Window(arguments, settings, columns, 24))
        opened[-1].prompted()
        return opened[-1]

    yield start
    for window in opened:
        window.close()


def saved(window: Window, path: Path) -> list[tuple[str, str]]:
    """The conversation, by /save."""
    window.send(f"/save {path} --overwrite")
    return [(message["role"], message["content"]) for message in json.loads(path.read_text())]


def test_editing_history_paste_and_completion(chat: Chat, tmp_path: Path) -> None:
    window = chat([["one"], ["two"], ["three"], ["four"]])
    window.send(f"wrld{LEFT * 3}o")
    window.send("hello " + UP)  # the message before takes the place of what was begun
    window.paste("first line\nsecond\n\n  third")
    window.wait_for(">\\s+first line\n\\s+second\n\\s+third")
    window.send("")
    window.type("a" + ALT_ENTER + "b")
    window.send("")
    conversation = saved(window, tmp_path / "talk.json")
    assert conversation == [
        ("user", "world"),
        ("assistant", "one"),
        ("user", "world"),
        ("assistant", "two"),
        ("user", "first line\nsecond\n\n  third"),
        ("assistant", "three"),
        ("user", "a\nb"),
        ("assistant", "four"),
    ]
    window.type("/reg\t")
    window.wait_for("/regenerate")
    window.type(CTRL_C)
    window.prompted()
    window.type(CTRL_D)
    assert window.end() == 0

    history = tmp_path / "state" / "rockledge" / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700
    again = chat([["five"]])
    again.type(UP * 2)
    again.wait_for("> a\n\\s+b")
    again.type(UP * 2)  # up one line, then to the message before
    again.wait_for("first line\n\\s+second\n\\s+third")


def test_ctrl_c_stops_an_answer_and_a_second_one_leaves(chat: Chat, tmp_path: Path) -> None:
    window = chat([["A begin", "ning ", None], [None], ["whole"], ["part ", None]])
    assert not window.echoes()
    window.type("question\r")
    window.waiting()
    assert window.lines()[-1] == "A beginning"
    window.type(CTRL_C)
    window.prompted()
    assert "[stopped; Ctrl-C again" in window.text()
    kept = [("user", "question"), ("assistant", "A beginning ")]
    assert saved(window, tmp_path / "talk.json") == kept
    window.type("too late\r")
    window.waiting()
    window.type(CTRL_C)
    window.prompted()
    assert "stopped before the answer began" in window.text()
    assert saved(window, tmp_path / "talk.json") == kept
    window.send("next")
    window.type("begun")
    window.wait_for("> begun")
    window.type(CTRL_C)  # drops what was typed, and nothing else
    window.prompted()
    window.type(CTRL_C)
    window.wait_for("Ctrl-C again, or Ctrl-D, ends the conversation.\n>")
    window.type("last\r")
    window.waiting()
    window.type(CTRL_C)
    window.prompted()
    window.type(CTRL_C)
    assert window.end() == 0


def test_a_message_that_does_not_fit_leaves_the_conversation(
    chat: Chat, artifact: Path, tmp_path: Path
) -> None:
    window = chat([["fine"], ["yes"], ["more"]], "--ctx", "200", "--system", "Be brief.")
    window.send("hello")
    with Model.load(artifact, threads=1) as model:

        def excess(message: str) -> int:
            alone = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": message}]
            return len(model.tokens(alone)) - 199

        most = next(length for length in range(500, 0, -1) if excess("x" * length) <= 0)
        too_long = excess("word " * 90)
    assert too_long > 1
    window.send("word " * 90)
    assert f"the message is {too_long} tokens too long" in " ".join(window.lines())
    expected = [("system", "Be brief."), ("user", "hello"), ("assistant", "fine")]
    assert saved(window, tmp_path / "talk.json") == expected
    window.send("x" * most)  # fits without what came before, which stays in the conversation
    assert "the context is full" in window.text()
    assert len(saved(window, tmp_path / "talk.json")) == 5


ENGLISH = (
    "The sufficiently long sentence has considerable, well-chosen, unbreakable words: internationalisation."
)
WIDE = (
    "寒い夜に灯台の光が海を照らし、船は静かに港へ帰る。 "
    "나는 아름다운 등대를 바라보았습니다 그리고 기다렸습니다"
)


def test_words_are_whole_in_a_narrow_window(chat: Chat) -> None:
    pieces = [text[i : i + 3] for text in (ENGLISH + "\n\n", WIDE) for i in range(0, len(text), 3)]
    window = chat([pieces], columns=40)
    window.send("go")
    shown = window.lines()
    answer = shown[shown.index("> go") + 1 : -1]
    cells = [line.replace(" ", "") for line in answer]
    assert "".join(cells) == (ENGLISH + WIDE).replace(" ", "")
    words = [word for line in answer for word in line.split()]
    assert all(word in words for word in (*ENGLISH.split(), *WIDE.split()[1:]))
    assert len(answer) < 12  # lines are filled
    assert not any(line.startswith(("、", "。")) for line in answer)


def test_answers_show_no_keys_and_change_no_terminal(chat: Chat, tmp_path: Path) -> None:
    window = chat([["before ", 6, "after"], ["ab\x1b[2Jcd\x07\r\nnext\ttab"]])
    window.type("question\r")
    window.waiting()
    window.type("secret")
    window.wait_for("before after\n> secret")
    window.send("")
    assert window.lines()[-3:-1] == ["ab\ufffd[2Jcd\ufffd", "next    tab"]
    assert saved(window, tmp_path / "talk.json")[2] == ("user", "secret")


def test_commands(chat: Chat, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ tone }}{% for message in messages %}{{ message.content }}{% endfor %}")
    window = chat(
        [["one"], ["two"], ["three"], ["four"]],
        "--temperature",
        "0",
        "--chat-template",
        str(template),
        columns=120,
    )
    talk = tmp_path / "my talk.json"

    def says(command: str, *texts: str) -> None:
        before = len(window.lines())
        window.send(command)
        said = " ".join(window.lines()[before:])
        assert all(text in said for text in texts), said

    says("/help", "/system [TEXT]", "/set [NAME [VALUE]]", "/regenerate", "/bye", "Ctrl-D")
    says("/hlep", "no command /hlep", "did you mean /help?")
    says("/clear now", "takes nothing after it")
    says("/regenerate", "no message to answer again")
    says("/system Answer in Latin.", "Answer in Latin.")
    says("hello", "one")
    says("/regenerate", "temperature 0 gives the same answer", "two")
    says("/set", "temperature = 0.0", "seed = none", "max_tokens = 1024", "tone = none")
    says("/set temperature 0.5", "temperature = 0.5")
    says("/set temperature -1", "temperature is -1, expected a number of at least 0")
    says("/set temperature", "temperature = 0.5")
    says("/set top_p 1.5", "top_p is 1.5")
    says("/set max_tokens 0", "max_tokens is 0")
    says("/set tone friendly", "tone = friendly")
    says("/set warmth 3", "no setting 'warmth'", "tone")
    says("/stats", "3 messages", "tokens of context", "2 answers", "tok/s")
    says(f"/save {talk}", "[saved 3 messages")
    says("/clear", "2 messages forgotten", "the system message stays")
    says(f"/save {talk}", "exists", "--overwrite")
    assert [message["content"] for message in json.loads(talk.read_text())] == [
        "Answer in Latin.",
        "hello",
        "two",
    ]
    says("/system -", "system message: none")
    says("new", "three")
    says(f"/load {tmp_path / 'none.json'}", "does not exist")
    says(f"/load {template}", "is not JSON")
    says(f"/load {talk}", "[loaded 3 messages in place of 2 messages]")
    says(f"/save {tmp_path / 'no' / 'talk.json'}", "No such file or directory")
    says("/usr/bin is a path", "four")
    assert saved(window, talk)[-2:] == [("user", "/usr/bin is a path"), ("assistant", "four")]
    window.type("/bye\r")
    assert window.end() == 0
    assert window.echoes()


def test_no_history_and_a_termination(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    window = chat([])
    assert "messages are not kept for the next time" in window.text()
    window.send("/stats")
    window.kill(signal.SIGTERM)
    assert window.end() == 143
    assert window.echoes()


def test_a_terminal_that_can_only_print(chat: Chat) -> None:
    window = chat([["Latin"]], TERM="dumb")
    window.send("hello")
    assert window.lines()[-3:] == ["> hello", "Latin", ">"]
    window.type(CTRL_D)
    assert window.end() == 0


def test_answers_into_a_file(artifact: Path, tmp_path: Path) -> None:
    script, out = tmp_path / "answers.json", tmp_path / "out.json"
    script.write_text(json.dumps([["whole"], ["part", None]]))
    program = [sys.executable, str(SCRIPTED), str(script), "chat", str(artifact), "--threads", "1", "--json"]
    redirected = f"import os; os.dup2(os.open({str(out)!r}, 65), 1); os.execv({program[0]!r}, {program!r})"
    window = Window(["-c", redirected], {"XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"}, 80, 24)
    try:
        window.prompted()
        window.type("one\r")
        window.wait_for("> one\n>")
        window.type("two\r")
        window.waiting()
        window.type(CTRL_C)
        window.prompted()
        window.type(CTRL_C)
        assert window.end() == 0
    finally:
        window.close()
    body = json.loads(out.read_text())
    assert [message["content"] for message in body["messages"]] == ["one", "whole", "two", "part"]
    assert [turn["finish_reason"] for turn in body["turns"]] == ["stop", "interrupted"]


def test_an_answer_of_the_real_engine(artifact: Path, tmp_path: Path) -> None:
    flags = ["--threads", "1", "--max-tokens", "4", "--temperature", "0"]
    arguments = ["-m", "rockledge", "chat", str(artifact), *flags]
    window = Window(arguments, {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"}, 80, 24)
    try:
        window.prompted()
        window.send("hello")
        window.send("/stats")
        assert "2 messages" in window.text()
        assert "decode: 4 tokens" in window.text()
    finally:
        window.close()
