"""`rockledge run` on a toy model."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rockledge.runtime.engine import Engine
from rockledge.runtime.sampling import Sampling
from rockledge.synth import SHAPES, synth_artifact
from rockledge.tensor_file import read_header

Run = Callable[..., Any]


def test_the_answer_is_the_engines(rockledge: Run, artifact: Path) -> None:
    done = rockledge("run", artifact, "Hello", "--max-tokens", 9, "--system", "Be brief.", "--json")
    assert done.code == 0
    with Engine.load(artifact) as engine:
        assert engine.chat is not None
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        prompt = engine.tokenizer.encode(engine.chat.render(messages), bos=False)
        pieces = list(engine.generate(prompt, max_tokens=9, sampling=Sampling()))
    assert done.json["text"] == "".join(piece.text for piece in pieces)
    assert done.json["finish_reason"] == pieces[-1].finish
    assert done.json["prompt_tokens"] == len(prompt)
    assert done.json["decode_tok_s"] > 0


def test_people_see_text_on_stdout_and_the_rest_on_stderr(rockledge: Run, artifact: Path) -> None:
    text = rockledge("run", artifact, "Hello", "--max-tokens", 9, "--json").json["text"]
    done = rockledge("run", artifact, "Hello", "--max-tokens", 9)
    assert done.out == text + "\n"
    assert "kernel" in done.err
    assert "tok/s" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("what is -5 + 3 - a gateway?", "--max-tokens", 6),
        ("what", "is", "-5", "+", "3", "-", "a", "gateway?", "--max-tokens", 6),
        ("--max-tokens", 6, "what", "is -5", "+", "3", "- a gateway?"),
        ("what", "is", "--max-tokens", 6, "-5", "+ 3", "-", "a gateway?"),
        ("--max-tokens", 6, "--", "what", "is", "-5", "+", "3", "-", "a", "gateway?"),
    ],
)
def test_a_prompt_needs_no_quotes(rockledge: Run, artifact: Path, words: tuple[object, ...]) -> None:
    one = rockledge("run", artifact, "what is -5 + 3 - a gateway?", "--max-tokens", 6, "--json").json
    many = rockledge("run", artifact, *words[:0], "--json", *words)
    assert many.code == 0
    assert (many.json["text"], many.json["prompt_tokens"]) == (one["text"], one["prompt_tokens"])


def test_a_prompt_that_looks_like_a_flag_says_how(rockledge: Run, artifact: Path) -> None:
    refused = rockledge("run", artifact, "explain", "--verbose")
    assert refused.code == 2
    assert "follows --" in refused.err
    assert rockledge("run", artifact, "--max-tokens", 2, "--", "explain", "--verbose").code == 0


def test_raw_continues_the_text(rockledge: Run, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = rockledge("run", artifact, "Hello", "--raw", "--max-tokens", 4, "--json").json
    assert raw["prompt_tokens"] == len("Hello")
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello"))
    assert rockledge("run", artifact, "-", "--raw", "--max-tokens", 4, "--json").json["text"] == raw["text"]


def test_flags_reach_the_engine(rockledge: Run, artifact: Path) -> None:
    flags = (
        "--temperature",
        1.3,
        "--top-k",
        50,
        "--top-p",
        0.99,
        "--min-p",
        0.0001,
        "--max-tokens",
        20,
        "--raw",
    )
    texts = [
        rockledge("run", artifact, "Hi", *flags, "--seed", seed, "--json").json["text"] for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    stop = texts[0][10]
    stopped = rockledge("run", artifact, "Hi", *flags, "--seed", 1, "--stop", stop, "--json").json
    assert stopped["text"] == texts[0][: texts[0].index(stop)]
    small = rockledge(
        "run", artifact, "Hi", "--threads", 1, "--ctx", 64, "--memory", "64M", "--kernel", "portable"
    )
    assert small.code == 0
    assert "portable" in small.err
    assert "1 thread (requested)" in small.err


@pytest.mark.parametrize(
    "flags, code, hint",
    [
        (("x" * 700,), 1, "context"),
        (("Hi", "--memory", "10K"), 1, ""),
        (("Hi", "--memory", "lots"), 2, "6G"),
        (("Hi", "--threads", "0"), 2, "at least 1"),
        (("Hi", "--max-tokens", "none"), 2, "at least 1"),
        (("Hi", "--top-p", "2"), 2, "at most 1"),
        (("Hi", "--kernel", "mmx"), 2, "portable"),
    ],
)
def test_mistakes_are_one_sentence(
    rockledge: Run, artifact: Path, flags: tuple[str, ...], code: int, hint: str
) -> None:
    done = rockledge("run", artifact, *flags, "--json")
    assert done.code == code
    assert hint in done.json["error"]
    assert "Traceback" not in done.err


def test_what_does_not_exist_is_no_model(rockledge: Run, tmp_path: Path) -> None:
    assert rockledge("run", tmp_path / "nowhere", "Hi").code == 1


def test_another_template_and_its_variables(rockledge: Run, artifact: Path, tmp_path: Path) -> None:
    template = tmp_path / "short.jinja"
    template.write_text("{{ messages[-1].content }}{% if loud %}!!{% endif %}")
    flags = ("--chat-template", template, "--max-tokens", 2, "--json")
    plain = rockledge("run", artifact, "Hello", *flags)
    loud = rockledge("run", artifact, "Hello", *flags, "--chat-template-kwargs", '{"loud": true}')
    assert (plain.json["prompt_tokens"], loud.json["prompt_tokens"]) == (len("Hello"), len("Hello!!"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--chat-template", "missing.jinja"], "missing.jinja cannot be read (no such file or directory)"),
        (["--chat-template-kwargs", "[1]"], "'[1]' is not a JSON object"),
        (["--chat-template-kwargs", "[" * 100000], "[[[' is not a JSON object"),
        (["--chat-template-kwargs", '{"loud": true}'], "the chat template does not read 'loud'"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(
    flags: list[str], said: str, rockledge: Run, artifact: Path
) -> None:
    done = rockledge("run", artifact, "Hello", *flags)
    assert done.code == 2
    assert said in done.err


def tensor(artifact: Path, name: str) -> tuple[int, int]:
    """Where a tensor's bytes lie in model.safetensors."""
    header = read_header(artifact / "model.safetensors")
    entry = header.entries[name]
    return header.data_start + entry.begin, header.data_start + entry.end


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with tensors whose middle is far from their ends."""
    config = replace(SHAPES["toy"], layers=1, ffn=1024)
    return synth_artifact(config, tmp_path_factory.mktemp("models") / "larger", bits=8)


@pytest.mark.parametrize("command", ["run", "chat", "bench"])
@pytest.mark.parametrize("place", ["begin", "middle", "end"])
def test_damage_is_said(
    rockledge: Run, larger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, place: str
) -> None:
    damaged = shutil.copytree(larger, tmp_path / "damaged")
    begin, end = tensor(damaged, "layers.0.ffn.down.codes")
    assert end - begin > 3 * 4096
    offset = {"begin": begin, "middle": (begin + end) // 2, "end": end - 64}[place]
    with open(damaged / "model.safetensors", "r+b") as file:
        file.seek(offset)
        old = file.read(64)
        file.seek(offset)
        file.write(bytes(byte ^ 0xFF for byte in old))
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi"))
    flags = {
        "run": ("Hi", "--max-tokens", 2),
        "chat": ("--max-tokens", 2),
        "bench": ("--prompt", 4, "--generate", 2, "--repeat", 1, "--read-buffer", "4M"),
    }
    done = rockledge(command, damaged, *flags[command], "--json")
    assert done.code == 1
    assert "the checksum of layers.0.ffn.down.codes is wrong; fetch it again" in done.json["error"]
    assert rockledge(command, larger, *flags[command]).code == 0
