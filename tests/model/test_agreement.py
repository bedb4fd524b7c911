"""Files of a checkpoint that do not belong together: one sentence when it is opened, or a note."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.model.oracle import CASES

from rockledge.errors import CheckpointError
from rockledge.model.chat import ChatTemplate
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.model.tokenizer import Tokenizer

ROWS = 300


def changed(tmp_path: Path, case: str = "f13_map", extra: int = 0, **config: Any) -> Path:
    """A case with changed keys of tokenizer_config.json (None takes one away) and `extra` added tokens
    <extra0>, ... behind the last row."""
    directory = tmp_path / case
    shutil.copytree(CASES / case, directory)
    settings = {**json.loads((directory / "tokenizer_config.json").read_text()), **config}
    settings = {key: value for key, value in settings.items() if value is not None}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    like = tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] += [{**like, "id": ROWS + i, "content": f"<extra{i}>"} for i in range(extra)]
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    return directory


def test_the_case_is_refused_when_it_is_opened() -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(CASES / "f5_vocab")
    assert str(caught.value) == (
        "the tokenizer gives its eos_token '<|im_end|>' the id 301, but the model has rows for 0 to 299 "
        "only; use the tokenizer that belongs to these weights"
    )


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"eos_token": "<extra1>"}, "its eos_token '<extra1>' the id 301"),
        ({"bos_token": {"content": "<extra0>"}}, "its bos_token '<extra0>' the id 300"),
        (
            {"chat_template": "{% for m in messages %}<extra0>{{ m.content }}{% endfor %}"},
            "'<extra0>', which",
        ),
        ({"chat_template": "{{ '<ext' + 'ra' ~ '1>' }}"}, "'<extra1>', which the chat template writes"),
        (
            {"pad_token": "<extra0>", "chat_template": "{{ pad_token }}"},
            "'<extra0>', which the chat template",
        ),
        (
            {"unk_token": "<new>", "chat_template": "{{ unk_token }}"},
            "'<new>', which the chat template writes",
        ),
        ({"pad_token": "<extra0>"}, None),
        ({"chat_template": None}, None),
    ],
)
def test_tokens_without_a_row_are_refused_where_they_are_used(
    config: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    directory = changed(tmp_path, "f14_tojson", extra=2, **config)
    if said is not None:
        with pytest.raises(CheckpointError, match=f"the tokenizer gives {said}"):
            open_checkpoint(directory)
        return
    checkpoint = open_checkpoint(directory)
    assert [note.split(",")[0] for note in checkpoint.notes[:2]] == [
        "The tokenizer gives '<extra0>' the id 300",
        "The tokenizer gives '<extra1>' the id 301",
    ]
    ids = Tokenizer.from_files(checkpoint.files()).encode("<extra0><extra1><|im_end|>", bos=True)
    assert max(ids) == ROWS - 1


def test_a_beginning_without_a_row_is_refused(tmp_path: Path) -> None:
    directory = changed(tmp_path, extra=1)
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"] = json.loads((CASES / "f12_append/tokenizer.json").read_text())[
        "post_processor"
    ]
    content["post_processor"]["single"].reverse()
    content["post_processor"]["special_tokens"]["<|endoftext|>"]["ids"] = [ROWS]
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="gives what texts begin with the id 300"):
        open_checkpoint(directory)


def notes(directory: Path) -> str:
    return " ".join(open_checkpoint(directory).notes)


def test_good_checkpoints_have_no_notes(tmp_path: Path) -> None:
    for case in ("f1_mistral", "f13_map", "f14_tojson", "f8_pre.gguf"):
        assert open_checkpoint(CASES / case).notes == ()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"add_bos_token": True}, "add_bos_token is true in tokenizer_config.json, but the post-processor"),
        ({"split_special_tokens": True}, "split_special_tokens is true in tokenizer_config.json, so special"),
        ({"chat_template": "{{ cls_token }}x"}, "The chat template names cls_token, which no file"),
        ({"chat_template": [{"name": "tool_use", "template": "x"}]}, "(tool_use) but no default one"),
        ({"chat_template": "{{ raise_exception('never') }}"}, "Not even one message from a user"),
        ({"chat_template": "{% if %}"}, "is not valid Jinja (line 1: "),
    ],
)
def test_what_is_unusual_is_noted(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in notes(changed(tmp_path, **config))


def test_an_id_that_ends_an_answer_and_no_token_has(tmp_path: Path) -> None:
    directory = changed(tmp_path)
    for name in ("config.json", "generation_config.json"):
        content = json.loads((directory / name).read_text())
        (directory / name).write_text(json.dumps({**content, "eos_token_id": 31}))
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {p: i for p, i in tokenizer["model"]["vocab"].items() if i != 31}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "An answer ends with the id 31, which the tokenizer has no token for." in notes(directory)


def test_a_model_whose_answers_never_end(tmp_path: Path) -> None:
    directory = changed(tmp_path)
    for name in ("config.json", "generation_config.json"):
        content = json.loads((directory / name).read_text())
        (directory / name).write_text(json.dumps({**content, "eos_token_id": None}))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        content = json.loads((directory / name).read_text())
        (directory / name).write_text(json.dumps({k: v for k, v in content.items() if k != "eos_token"}))
    for file in directory.glob("*.json"):  # nor by its name
        renamed = file.read_text().replace("<|im_end|>", "<|stop|>").replace("<|endoftext|>", "<|text|>")
        file.write_text(renamed)
    assert "No token is known that ends an answer" in notes(directory)


def test_without_a_tokenizer_a_checkpoint_can_be_inspected(tmp_path: Path) -> None:
    directory = changed(tmp_path)
    (directory / "tokenizer.json").unlink()
    assert "There is no tokenizer.json" in notes(directory)


@pytest.mark.parametrize("content", ["{}", "{", '{"model": 1}'])
def test_a_damaged_tokenizer_is_refused_when_it_is_opened(content: str, tmp_path: Path) -> None:
    directory = changed(tmp_path)
    (directory / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer.json (cannot be used|is not readable JSON)"):
        open_checkpoint(directory)


def test_the_template_of_the_case_gets_its_bos() -> None:
    checkpoint: Checkpoint = open_checkpoint(CASES / "f13_map")
    chat = ChatTemplate.from_files(checkpoint.files())
    assert chat is not None
    assert chat.render([{"role": "user", "content": "a"}]).startswith("<|endoftext|><|im_start|>user\na")
