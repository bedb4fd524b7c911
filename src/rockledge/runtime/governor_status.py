"""How the governor of a board stands: what it reads, what it keeps, and the setting that holds now."""

from dataclasses import dataclass
from typing import Any, Literal

from rockledge.board.levers import Setting

GovernorState = Literal["free", "holding back", "safe"]
"""Nothing is held back; something was in the last minute; the temperature is not believed."""


@dataclass(frozen=True)
class GovernorStatus:
    """`celsius`: the last temperature, None where there is none; `target`: °C that are kept. `full`: the
    setting with nothing held back; `kept`: the modelled share of the full speed. `reason`: why the
    temperature is not believed, None while it is."""

    state: GovernorState
    celsius: float | None
    target: float
    setting: Setting
    full: Setting
    kept: float
    throttled: bool = False
    reason: str | None = None

    @property
    def safe(self) -> bool:
        """Whether a safe setting holds because the temperature is not believed."""
        return self.state == "safe"

    @property
    def holding_back(self) -> bool:
        """Whether less is done than could be, for whatever reason."""
        return self.state != "free"

    def body(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "state": self.state,
            "reason": self.reason,
            "temperature_celsius": self.celsius,
            "target_celsius": self.target,
            "throttled_by_kernel": self.throttled,
            "speed_kept": round(self.kept, 3),
            "setting": _body(self.setting),
            "full_setting": _body(self.full),
        }

    def describe(self) -> str:
        """The setting for a log: what it has, of what there is."""
        now, full = self.setting, self.full
        parts = [f"{now.threads} of {full.threads} threads"]
        if now.prompt_share < full.prompt_share:
            parts.append(f"{now.prompt_share:.0%} of the prompt rows beside answers")
        if now.npu_hz < full.npu_hz:
            parts.append(f"the NPU at {now.npu_hz / 1e6:.0f} of {full.npu_hz / 1e6:.0f} MHz")
        if now.sequences < full.sequences:
            parts.append(f"{now.sequences} of {full.sequences} sequences at once")
        if now.rest:
            parts.append(f"{now.rest:.0%} of the time at rest")
        return ", ".join(parts)


def _body(setting: Setting) -> dict[str, Any]:
    return {
        "threads": setting.threads,
        "prompt_share": setting.prompt_share,
        "npu_mhz": round(setting.npu_hz / 1e6) if setting.npu_hz else None,
        "sequences": setting.sequences,
        "rest_share": round(setting.rest, 3),
    }
