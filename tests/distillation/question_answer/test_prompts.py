"""Prompts: an example of the same kind first, then the passage; with and without a chat template."""

import pytest

from rockledge.distillation.question_answer.passages import Passage
from rockledge.distillation.question_answer.prompts import KINDS, Prompts
from rockledge.model.tokenizer import Tokenizer
from rockledge.synth import model_files, shape_config

FILES = model_files(shape_config("toy"))
PASSAGE = Passage(0, "Manual > Spindle", "M3 starts the spindle.")


@pytest.mark.parametrize("template", [True, False])
def test_the_passage_comes_last_and_the_example_shows_the_form(template: bool) -> None:
    files = {name: data for name, data in FILES.items() if template or name != "chat_template.jinja"}
    prompts = Prompts(files)
    for kind, said in enumerate(KINDS):
        text = Tokenizer.from_files(FILES).decode(prompts.ids(PASSAGE, kind))
        assert text.count(said) == 2
        example, _, rest = text.partition("\nAnswer: ")
        assert "K2 coffee machine" in example
        assert PASSAGE.text in rest
        assert rest.endswith("assistant\n" if template else "Question:")
    assert prompts.begun == ("" if template else "Question:")
    longest = max(len(prompts.ids(PASSAGE, kind)) for kind in range(len(KINDS)))
    assert prompts.around() < longest <= prompts.around() + 60
