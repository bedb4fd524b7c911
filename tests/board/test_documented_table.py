"""Modelled numbers in docs/precision.md and docs/performance.md are what the code says today: none drifts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rockledge.board.boards import find_board
from rockledge.board.cycles import TILE_CYCLES, TILE_WEIGHTS
from rockledge.board.memory import kv_bytes, weight_budget
from rockledge.board.tiles import stored_bytes
from rockledge.board.time import predict_decode

PAGE = Path(__file__).parents[2] / "docs" / "precision.md"
SPEEDS = PAGE.with_name("performance.md")
BOARD = find_board("rk3588-8gb")


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    windows: tuple[int, ...] = ()
    headless: bool = False


SHAPES = {
    "Llama-3-8B": Shape(4096, 32, 32, 8, 128, 14336, 128256, tied=False),
    "Llama-3.2-3B": Shape(3072, 28, 24, 8, 128, 8192, 128256, tied=True),
}


def documented() -> Iterator[tuple[str, ...]]:
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if cells[0] in SHAPES:
            yield cells


def computed(name: str, bits: int) -> tuple[str, ...]:
    shape = SHAPES[name]
    attention = shape.heads * shape.head_dim
    kv = shape.kv_heads * shape.head_dim
    block = [(attention, shape.hidden), (kv, shape.hidden), (kv, shape.hidden), (shape.hidden, attention)]
    block += [(shape.ffn, shape.hidden), (shape.ffn, shape.hidden), (shape.hidden, shape.ffn)]
    read = [(bits, rows, cols) for rows, cols in [*block * shape.layers, (shape.vocab, shape.hidden)]]
    stored = read if shape.tied else [*read, (bits, shape.vocab, shape.hidden)]
    size = sum(stored_bytes(*band) for band in stored)
    parameters = sum(rows * cols for _, rows, cols in stored)
    longest = (weight_budget(BOARD, shape, 1) - size) // kv_bytes(shape, 1)
    short = predict_decode(read).decode_tok_s
    long = predict_decode(read, kv_bytes_read=kv_bytes(shape, 8192)).decode_tok_s
    fits = f"{longest // 1000},000 tokens" if longest > 0 else "does not fit"
    figures = (f"{8 * size / parameters:.2f}", f"{size / 1e9:.2f}", f"{short:.1f}", f"{long:.1f}")
    return (name, f"{bits}", *figures, fits)


@pytest.mark.parametrize("cells", list(documented()), ids=lambda cells: "-".join(cells[:2]))
def test_row(cells: tuple[str, ...]) -> None:
    assert cells == computed(cells[0], int(cells[1]))


def test_the_table_is_whole() -> None:
    assert [cells[:2] for cells in documented()] == [(name, b) for name in SHAPES for b in ("3", "4", "8")]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_cycles_of_a_tile_are_the_facts_of_the_board(bits: int) -> None:
    """Bits, instructions, cycles, and the GB/s of codes that four cores take at 2.2 GHz."""
    _, _, page = SPEEDS.read_text(encoding="utf-8").partition("### Cycles of the inner loops")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    row = next(cells for cells in rows if cells[0] == str(bits))
    assert float(row[2]) == TILE_CYCLES[bits, 1]
    codes = TILE_WEIGHTS * bits / 8 * 4 * 2.2 / TILE_CYCLES[bits, 1]
    assert float(row[3]) == pytest.approx(codes, rel=0.005)
