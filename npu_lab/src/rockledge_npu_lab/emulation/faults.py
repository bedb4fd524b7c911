"""What the NPU cannot run: the rules of a stream as a table, the error that names one, and warnings.

An effect is what a chip does (or did, as published) with a stream that breaks the rule; "not
modelled" is our own limit: the hardware may do it, but the result is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rockledge.errors import NpuError


@dataclass(frozen=True)
class Rule:
    """A rule of streams: its short name, what breaking it leads to, and how sure that is ([H], [E], ...)."""

    name: str
    effect: str
    mark: str


RULES: Final = {
    rule.name: rule
    for rule in (
        Rule("unknown-target", "what the PC does with it is not known", "[?]"),
        Rule("page-2000", "touching page 0x2000 hangs the SoC", "[H]"),
        Rule("unknown-register", "not modelled", "[?]"),
        Rule("kernel-pointer", "writing the group pointers of CNA or CORE breaks cores 1 and 2", "[I]"),
        Rule("mac-gating", "clearing bit 24 stops the job", "[H]"),
        Rule("trailer", "the PC follows links only in the two words before the marker", "[H]"),
        Rule("unlinked", "only the first program runs, then a time-out", "[H]"),
        Rule("alignment", "the bus moves whole atoms of 16 bytes", "[H]"),
        Rule("loop", "the kick would run a program twice", "our limit"),
        Rule("too-long", "more than the PC counts or fetches", "[T]"),
        Rule("bitmap", "not modelled", "[?]"),
        Rule("pooling", "not modelled", "[?]"),
        Rule("shape", "the blocks disagree about the size of the data", "[?]"),
        Rule("type", "both operands of a product have one type", "[H]"),
        Rule("multiple", "a partial group is computed from what follows the data", "[H]"),
        Rule("weight-size", "weights are read by bytes that the kernels do not have", "[?]"),
        Rule("convolution", "not modelled", "[?]"),
        Rule("input-conversion", "not modelled", "[?]"),
        Rule("decompression", "not modelled", "[X]"),
        Rule("bank-sum", "zero output", "[H]"),
        Rule("data-banks", "zero output", "[H]"),
        Rule("weight-banks", "not known; authors keep room for one group of kernels", "[?]"),
        Rule("data-entries", "zero output", "[H]"),
        Rule("fc-data-bank", "two thirds of the output are corrupt", "[H]"),
        Rule("reuse", "the convolution buffer does not hold what the program expects", "[H]"),
        Rule("spare-bank", "silently wrong values", "[H]"),
        Rule("long-k", "submits with K between 3072 and 4096 and small grains failed", "[H]"),
        Rule("tf32-k", "time-out", "[H]"),
        Rule("wide-then-int8", "time-out", "[H]"),
        Rule("unfed-rdma", "time-out, output untouched", "[H]"),
        Rule("unread-operand", "the stage waits for an operand that no block reads", "[I]"),
        Rule("bn-dma", "hang", "[H]"),
        Rule("partial-int8-group", "hang", "[H]"),
        Rule("int16-pair", "hang after a product in one chain", "[H]"),
        Rule("int8-after-product", "hang in a kick of its own after a product", "[H]"),
        Rule("int16-output", "time-out in int8 programs of one author", "[X]"),
        Rule("lut-fp16", "time-out after a product for one author, right for another", "[X]"),
        Rule("lut-flat", "spikes where entries are flat", "[H]"),
        Rule("lut-zero", "an entry of 0 reads as about 4.0", "[H]"),
        Rule("lut-near-zero", "a spike near zero with a negative offset", "[H]"),
        Rule("field-limit", "silently wrong tail", "[H]"),
        Rule("memory", "the IOMMU has no page there", "[T]"),
        Rule("overlap", "later bytes overwrite earlier ones, in no known order", "[?]"),
        Rule("notches", "why there are two is not known", "[?]"),
        Rule("size-e", "three fields that always agree", "[?]"),
        Rule("stage", "not modelled", "[?]"),
        Rule("output-conversion", "not modelled", "[?]"),
        Rule("overflow", "a sum left its type", "[X]"),
        Rule("unwritten", "an old value of an earlier program may be there", "[H]"),
        Rule("interrupt-mask", "early completion, partial output", "[T]"),
    )
}


@dataclass(frozen=True)
class Place:
    """Where in a kick something was written: program and word count from 0; register by name.

    `word` is None for a register that nothing of the kick wrote.
    """

    program: int
    word: int | None = None
    register: str | None = None

    def __str__(self) -> str:
        text = f"program {self.program}"
        if self.word is not None:
            text += f", word {self.word}"
        if self.register is not None:
            text += f", {self.register}" + ("" if self.word is not None else " (not written in this kick)")
        return text


class StreamError(NpuError):
    """A stream that the NPU would hang on or refuse, or that the model cannot follow.

    `rule` names the rule of `RULES`, `place` the word and the register.
    """

    def __init__(self, rule: str, place: Place, text: str) -> None:
        self.rule = RULES[rule]
        self.place = place
        super().__init__(f"{place}: {text} (rule {rule}: {self.rule.effect} {self.rule.mark})")


@dataclass(frozen=True)
class Flag:
    """Something suspicious that did not stop the program."""

    rule: Rule
    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text} (rule {self.rule.name}: {self.rule.effect} {self.rule.mark})"
