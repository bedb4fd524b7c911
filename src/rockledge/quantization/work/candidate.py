"""One linear at one width, as the work directory keeps it until the widths are chosen."""

from dataclasses import dataclass

from rockledge.formats.table import Float32, Int8, UInt8


@dataclass(frozen=True)
class Candidate:
    """A linear [N, K] rounded to one width. `codes` uint8 [N, K] (at 8 bits w8 viewed as uint8), `index`
    uint8 [N, ceil(K/16)] and `tables` int8 [16, 2^bits] (at 8 bits both None), `scale` fp32 [N], `prices`
    fp32 [N]: the divergence that the rounding of each row costs, in nats a token.
    """

    bits: int
    codes: UInt8
    index: UInt8 | None
    tables: Int8 | None
    scale: Float32
    prices: Float32
