"""Models on a board as numbers, for tests of heat."""

from functools import cache

from rockledge.board.boards import find_board
from rockledge.board.levers import Work
from rockledge.model.block import decoder
from rockledge.model.known_shapes import find_shape
from rockledge.runtime.modelled_work import work_of

CLOCKS = tuple(mhz * 1e6 for mhz in range(300, 1001, 100))


@cache
def eight_billion(bits: int = 4, npu: bool = True) -> Work:
    """Llama 3 8B with all weights at one width, on a board that is large enough."""
    shape = find_shape("llama-3-8b")
    assert shape is not None
    tree = decoder(shape.config)
    bands = [
        (bits, linear.rows, linear.cols)
        for name, linear in tree.linears()
        if not (name == tree.embed.role and tree.gathered)
    ]
    return work_of(
        find_board("rk3588-16gb"),
        shape.config,
        bands,
        context=8192,
        threads=4,
        sequences=4,
        npu=npu,
        npu_clocks=CLOCKS,
    )
