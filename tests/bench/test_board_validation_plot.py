"""What the picture shows."""

from pathlib import Path

from bench.board_validation_plot import Pair, drawing, plot

PAIRS = {"a": [Pair(1.0, 1.1, 2.0), Pair(10.0, 9.0, 5.0)], "b": [Pair(3.0, 3.0, 3.0)]}


def test_every_run_is_there_twice(tmp_path: Path) -> None:
    panels = [panel for panel in drawing(PAIRS).axes if panel.get_visible()]
    assert [panel.get_title() for panel in panels] == ["a, 2 rows", "b, 1 rows"]
    lines = {line.get_label(): line for line in panels[0].get_lines()}
    assert list(lines["formula"].get_xydata()[:, 1]) == [1.1, 9.0]
    assert list(lines["one bandwidth"].get_xydata()[:, 1]) == [2.0, 5.0]
    plot(PAIRS, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
