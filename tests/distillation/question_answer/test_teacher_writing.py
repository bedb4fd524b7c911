"""A model writes: the same outputs for the same seed, as transformers itself continues the prompts."""

from pathlib import Path

import pytest

pytest.importorskip("accelerate")

import torch
from tests.distillation.pair import made_model
from transformers import AutoModelForCausalLM

from rockledge.distillation.model_directory import small_files
from rockledge.distillation.question_answer.prompts import Prompts
from rockledge.distillation.question_answer.teacher_writing import WritingTeacher
from rockledge.errors import TrainingError


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("writer") / "teacher"
    made_model(place, hidden=16, layers=1, seed=3, context=256)
    return place


def writing(directory: Path) -> WritingTeacher:
    files = small_files(directory)
    return WritingTeacher(directory, files, Prompts(files), bf16=False)


def test_a_batch_depends_on_its_prompts_and_its_seed_alone(directory: Path) -> None:
    teacher = writing(directory)
    batch = [[1, 60, 70, 80], [1, 90], [1, 100, 110]]
    first = teacher.write(batch, "0 0", 12)
    torch.rand(3)
    before = torch.random.get_rng_state()
    teacher.write(batch[:1], "0 1", 12)
    assert torch.equal(before, torch.random.get_rng_state())
    assert writing(directory).write(batch, "0 0", 12) == first
    assert teacher.write(batch, "0 1", 12) != first


def test_outputs_go_on_from_their_own_prompt_and_end_at_the_end_token(directory: Path) -> None:
    """A model whose next token follows from the last one alone: sampled without a choice, it must go through
    the chain that greedy decoding of transformers goes through without padding."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)  # the likeliest token has all of the probability; the head is tied
    sharp = directory.parent / "sharp"
    if not sharp.exists():
        model.config.tie_word_embeddings = True
        model.save_pretrained(sharp)
        for name, data in small_files(directory).items():
            if name != "config.json":
                (sharp / name).write_bytes(data)
    teacher = writing(sharp)
    prompts = [[1, 60, 70, 80, 90, 65], [1, 90], [1, 100, 110]]
    outputs = teacher.write(prompts, "0", 10)
    tokenizer = Prompts(small_files(sharp))
    for prompt, (text, ended) in zip(prompts, outputs, strict=True):
        ids = list(prompt)
        for _ in range(10):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 2:
                break
        own = ids[len(prompt) :]
        assert ended == (own[-1] == 2)
        assert text == tokenizer.decode([token for token in own if token != 2])


def test_logits_that_are_not_numbers_are_said(directory: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    broken = directory.parent / "broken"
    model.save_pretrained(broken)
    (broken / "tokenizer.json").write_bytes((directory / "tokenizer.json").read_bytes())
    with pytest.raises(TrainingError, match="the teacher's logits are not numbers"):
        writing(broken).write([[1, 60]], "0", 4)
