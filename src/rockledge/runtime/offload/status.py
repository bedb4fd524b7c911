"""The status of the NPU in this process, for the user, health and metrics."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["off", "none", "slower", "unusable", "ready", "failed"]
"""Switched off; not present; slower than the CPU as modelled or measured; present but not usable; in use;
given up while in use."""


@dataclass(frozen=True)
class NpuStatus:
    """The NPU of an engine. `reason`: why prefill runs on the CPU, None while the NPU is used.

    Steps of `from_rows` tokens or more go to `cores` of its cores, of at most `step_rows`. Since loading:
    `steps` with `rows` tokens in `blocks` of columns, `unpacked_bytes` of int8 weights written for them,
    `jobs` given to the device, `waited_seconds` for their ends by a thread, `busy_seconds` from the start of
    each block until its end was seen, `faults` of jobs, `resets`, and `fallbacks`: steps that the CPU had to
    do again. While loading: programs `tried`, those that were
    `tried_wrong`, and the seconds that took. Jobs, faults and resets of loading count whatever became of it.
    Prompt rows at positions from `attention_from` on have their attention there too (None: none has), so far
    `attention_rows` of them, in `attention_jobs`.
    """

    state: State
    reason: str | None = None
    driver: str | None = None
    version: str | None = None
    node: str | None = None
    cores: int = 0
    from_rows: int = 0
    step_rows: int = 0
    buffer_bytes: int = 0
    steps: int = 0
    rows: int = 0
    blocks: int = 0
    unpacked_bytes: int = 0
    jobs: int = 0
    waited_seconds: float = 0.0
    busy_seconds: float = 0.0
    faults: int = 0
    resets: int = 0
    fallbacks: int = 0
    tried: int = 0
    tried_wrong: int = 0
    tried_seconds: float = 0.0
    attention_from: int | None = None
    attention_rows: int = 0
    attention_jobs: int = 0

    @property
    def in_use(self) -> bool:
        """Whether prefill runs on it."""
        return self.state == "ready"

    def line(self) -> str:
        """For the user: what it did, or why it did nothing."""
        if self.driver is None:
            return f"no NPU: {self.reason}"
        did = f"NPU {self.driver} {self.version}: {self.rows} tokens in {_counted(self.steps, 'step')}"
        if self.faults:
            did += f", {_counted(self.faults, 'fault')}, {_counted(self.resets, 'reset')}"
        return did if self.reason is None else f"{did}; {self.reason}"

    def body(self) -> dict[str, Any]:
        """The keys of `--json` and of health."""
        return asdict(self)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
