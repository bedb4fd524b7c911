"""The picture of a terminal shows what its user saw, line for line."""

from xml.etree import ElementTree

import pytest
from tools.terminal_picture import MOST_ROWS, drawing, shown

TEXT = "{http://www.w3.org/2000/svg}text"


def test_it_shows_what_is_left_in_the_window_at_the_end() -> None:
    command, *lines = shown(["printf", r"half\rdone <&> \033[1mbold\033[0m\n\nlast\n"])
    assert command.startswith("$ printf 'half")
    assert lines == ["done <&> bold", "", "last"]
    texts = list(ElementTree.fromstring(drawing(["$ echo", *lines])).iter(TEXT))
    assert [text.text for text in texts] == ["$ echo", "done <&> bold", "last"]
    heights = [float(text.attrib["y"]) for text in texts]
    assert heights[2] - heights[1] == 2 * (heights[1] - heights[0])  # the empty line has its place


@pytest.mark.parametrize(
    "script, complaint", [("echo before; exit 3", "ended with 3"), (f"seq {MOST_ROWS + 5}", "more than")]
)
def test_what_would_show_something_else_is_refused(script: str, complaint: str) -> None:
    with pytest.raises(SystemExit, match=complaint):
        shown(["sh", "-c", script])
