"""What a chip is to this program, and the memory that boards put beside it: data without names of boards."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rockledge.board.facts import Fact
from rockledge.board.power import Power
from rockledge.board.thermal import Cooling


@dataclass(frozen=True)
class OperatingPoints:
    """The clocks that something can run at, in Hz, ascending; `source` as for a fact."""

    hz: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class Published:
    """What a vendor published of a model on a chip: tokens/s of prefill and of decode, MB of memory."""

    model: str
    parameters: float
    quant: str
    prefill_tok_s: float
    decode_tok_s: float
    memory_mb: float
    source: str


@dataclass(frozen=True)
class Chip:
    """One system on a chip.

    `compatible`: the strings by which a device tree names it. `decode_cores`: the numbers under which Linux
    has the cores that run models. `npu_node`: a core of its NPU as mainline's device tree names it.
    `facts`: those that hold for every board. `power`, `coolings`: its watts, and what may take its heat away,
    by name; None and none where too little is published. `refused`: why nothing of ours runs there, "" where
    it does; `published`: what the vendor says that its own programs reach, for chips on which ours do not
    run.
    """

    name: str
    title: str
    compatible: tuple[str, ...]
    decode_cores: range
    facts: Mapping[str, Fact] = field(repr=False)
    operating_points: Mapping[str, OperatingPoints] = field(default_factory=dict, repr=False)
    power: Power | None = field(default=None, repr=False)
    coolings: Mapping[str, Cooling] = field(default_factory=dict, repr=False)
    npu_node: str = ""
    refused: str = ""
    published: tuple[Published, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Memory:
    """One way in which boards of a chip are populated: sizes in GiB; what follows the size in a board's name;
    facts beside the chip's, or in place of them."""

    gib: tuple[int, ...]
    suffix: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    operating_points: Mapping[str, OperatingPoints] = field(default_factory=dict)
