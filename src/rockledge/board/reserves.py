"""What other software on a gateway takes of its memory, whatever the board."""

from rockledge.board.facts import Fact

GIB = float(1 << 30)

RESERVE_FACTS: dict[str, Fact] = {
    "firmware_reserve": Fact(0.25 * GIB, "B", "8 GB boards show about 7.75 GiB to Linux", "assumed"),
    "os_reserve": Fact(1.0e9, "B", "Linux and a gateway's own services, 0.6-1.0 GB", "assumed"),
    "process_reserve": Fact(
        0.2e9, "B", "Python, NumPy, tokenizer and server, without weights, KV cache and arena", "assumed"
    ),
}
