"""An answer of the engine, stopped while it is written."""

import itertools
from pathlib import Path

from rockledge.cli.answer import stream_answer
from rockledge.runtime.engine import Engine
from rockledge.runtime.sampling import Sampling


class Sheet:
    """What was printed."""

    def __init__(self) -> None:
        self.text = ""

    def print(self, text: str = "", end: str = "\n") -> None:
        """Part of the answer."""
        self.text += text + end


def test_an_answer_that_is_stopped_is_a_beginning_of_the_whole_one(artifact: Path) -> None:
    settings = {"max_tokens": 40, "sampling": Sampling(temperature=1.0, seed=1)}
    with Engine.load(artifact, threads=1) as engine:
        whole = stream_answer(engine, [5, 6, 7], Sheet(), **settings)
        asked = itertools.count()
        sheet = Sheet()
        part = stream_answer(engine, [5, 6, 7], sheet, **settings, cancelled=lambda: next(asked) >= 20)
        assert engine.free_pages == engine.pages
        none = stream_answer(engine, [5, 6, 7], Sheet(), **settings, cancelled=lambda: True)
    assert whole.finish in ("length", "stop")
    assert part.finish == none.finish == "interrupted"
    assert 0 < part.completion_tokens < whole.completion_tokens
    assert whole.text.startswith(part.text)
    assert sheet.text == part.text + "\n"
    assert (none.text, none.completion_tokens) == ("", 0)
