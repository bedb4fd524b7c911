"""`rockledge chat` with a script on stdin."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rockledge.model.chat import ChatTemplate
from rockledge.runtime.engine import Engine
from rockledge.runtime.sampling import Sampling
from rockledge.synth import SHAPES, model_files, synth_artifact

Run = Callable[..., Any]


@pytest.fixture
def talk(rockledge: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`talk("line\\nline\\n", flags...)`."""

    def run(script: str, *flags: object) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(script))
        return rockledge("chat", artifact, "--max-tokens", 6, "--seed", 1, *flags)

    return run


def test_a_conversation_keeps_its_history_and_ends_at_exit(talk: Run) -> None:
    body = talk("Hello\n\n  \nAnd then?\n/exit\nnever read\n", "--system", "Be brief.", "--json").json
    assert [message["role"] for message in body["messages"]] == ["system", *["user", "assistant"] * 2]
    assert [message["content"] for message in body["messages"]][::2] == ["Be brief.", *_answers(body)]
    assert [message["content"] for message in body["messages"]][1::2] == ["Hello", "And then?"]
    first, second = body["turns"]
    assert second["prompt_tokens"] > first["prompt_tokens"] + len("And then?")


def _answers(body: Any) -> list[str]:
    return [turn["text"] for turn in body["turns"]]


def test_the_end_of_the_input_ends_the_conversation(talk: Run) -> None:
    done = talk("Hello\nAgain")
    assert done.code == 0
    body = talk("Hello\nAgain", "--json").json
    assert done.out == "".join(f"{text}\n" for text in _answers(body))
    assert talk("").code == 0


def test_a_long_conversation_forgets_its_beginning_but_not_the_system_message(talk: Run) -> None:
    lines = "".join(f"message {number} {'x' * 60}\n" for number in range(8))
    done = talk(lines, "--system", "Be brief.", "--ctx", 300, "--json")
    assert done.code == 0
    assert "oldest exchange was dropped" in done.err
    contents = [message["content"] for message in done.json["messages"]]
    assert contents[0] == "Be brief."
    assert not any("message 0" in content for content in contents)
    assert any("message 7" in content for content in contents)
    assert len(done.json["turns"]) == 8


def test_a_message_longer_than_the_context_is_refused(talk: Run) -> None:
    done = talk("x" * 700)
    assert done.code == 1
    assert "context" in done.err


def test_a_model_without_a_template_points_to_run(
    rockledge: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatTemplate, "from_files", classmethod(lambda cls, files: None))
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
    done = rockledge("chat", artifact)
    assert done.code == 2
    assert "rockledge run" in done.err


def test_answers_are_drawn_as_the_model_says_or_warmly(
    rockledge: Run, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    generate = Engine.generate

    def recorded(self: Engine, prompt: Any, **settings: Any) -> Any:
        asked.append(settings["sampling"])
        return generate(self, prompt, **settings)

    monkeypatch.setattr(Engine, "generate", recorded)

    def ask(command: str, model: Path, *flags: object) -> Sampling:
        monkeypatch.setattr("sys.stdin", io.StringIO("Hi"))
        words = ("Hi",) if command == "run" else ()
        assert rockledge(command, model, *words, "--max-tokens", 1, *flags).code == 0
        return asked.pop()

    config = replace(SHAPES["toy"], eos=())
    files = {**model_files(config), "generation_config.json": b'{"temperature": 0.6, "top_k": 20}'}
    monkeypatch.setattr("rockledge.synth.model_files", lambda _: files)
    model = synth_artifact(config, tmp_path / "model")
    assert ask("chat", artifact) == Sampling(0.7, top_p=0.95, min_p=0.05)
    assert ask("run", artifact) == Sampling()
    assert ask("chat", model) == ask("run", model) == Sampling(0.6, top_k=20)
    # Flags replace one by one.
    assert ask("chat", artifact, "--top-p", 0.5, "--seed", 3) == Sampling(0.7, 0, 0.5, 0.05, 3)
    assert ask("run", model, "--temperature", 0) == Sampling(0.0, top_k=20)
