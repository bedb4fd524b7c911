"""How well two stages of heat follow published temperatures, and the constants of `board/rk3588_heat.py`.

    python -m bench.thermal [--json]

Five published series (bench/thermal_series.py). Fitted together are the two resistances and time constants of
every cooling, the watts of the parts of the benchmark in those of 7-zip on all cores, which all boards share,
and an ambient for every log. Then every log is left out in turn and predicted from the other four; of itself
it gives its ambient, as the median over the samples before all cores work. A cooling that only one log has
cannot be had from the others: its constants are fitted to those same samples, and what is predicted is the
part with all cores. Watts come from one assumption: four A76 that mine take what four that decode are
published to take. Writes bench/results/thermal.json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from bench.thermal_series import LOADS, LOGS, Log, Series, load_factor, read_series
from rockledge.board.boards import find_board
from rockledge.board.thermal import Cooling, Heat, Stage
from rockledge.virtual_board.throttle import CLOCKS, HYSTERESIS, TRIP_CELSIUS, Throttle

RESULTS: Final = Path(__file__).parent / "results"
WATTS: Final = find_board("rk3588-8gb").value("cpu_decode_watts")
"""That four A76 are taken to need when they mine."""
MINING: Final = LOADS.index("cpuminer, big cores")
UNIT: Final = LOADS.index("7-zip, all cores")
FAST_SECONDS, SLOW_SECONDS = (2.0, 8.0), (60.0, 200.0)
SENSOR_STEP: Final = 0.923
"""Kelvins between two temperatures that the sensor can give: what the logs show."""
THROTTLED: Final = "4qJG"
_USUAL, _TRUST = 0.2, 0.5  # a load of one core, and how firmly it is held there where little is known of it
_SAMPLE_SECONDS: Final = 0.1
_ZIP: Final = 86.0  # percent of all cores

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """`loads`: watts in those of 7-zip on all cores; `begin`: what a log begins at, in the same; coolings as
    (kelvins a unit of the fast stage, of the slow one, seconds of both)."""

    loads: Floats
    begin: float
    coolings: dict[str, tuple[float, float, float, float]]
    ambient: dict[str, float]

    @property
    def unit_watts(self) -> float:
        """Watts of 7-zip on all cores."""
        return WATTS / float(self.loads[MINING])

    def cooling(self, name: str, source: str = "") -> Cooling:
        fast, slow, fast_s, slow_s = self.coolings[name]
        stages = (Stage(fast / self.unit_watts, fast_s), Stage(slow / self.unit_watts, slow_s))
        return Cooling(name, "", *stages, source=source, kind="fitted")

    def kelvins(self, series: Series, cooling: str) -> Floats:
        """Above the ambient, at every sample."""
        fast, slow, fast_s, slow_s = self.coolings[cooling]
        drive = series.weight @ self.loads
        return _stage(series.seconds, drive, fast, fast_s, self.begin) + _stage(
            series.seconds, drive, slow, slow_s, self.begin
        )


def _stage(seconds: Floats, drive: Floats, gain: float, constant: float, begin: float) -> Floats:
    """One stage under a load that holds from the sample before until each sample."""
    since = (seconds[:, None] - seconds[None, :]) / constant
    step = np.concatenate([[0.0], 1 - np.exp(-np.diff(seconds) / constant)])
    response = np.where(since >= 0, np.exp(-np.maximum(since, 0)), 0.0) * step[None, :]
    result: Floats = gain * (response @ drive + begin * np.exp(-(seconds - seconds[0]) / constant))
    return result


def fit(
    logs: Sequence[Log], *, loads: Floats | None = None, until: int | None = None, begin: float = 0.0
) -> Fit:
    """The constants of `logs`. With `loads` and `begin` only those of coolings, from the samples before
    `until`."""
    series = {log.name: read_series(log) for log in logs}
    coolings = sorted({log.cooling for log in logs})
    shared = 0 if loads is not None else len(LOADS)  # one of them is the unit; its place is the beginning

    def unpack(x: Floats) -> Fit:
        found, first = (loads, begin) if loads is not None else (np.insert(x[:UNIT], UNIT, 1.0), x[UNIT])
        rows = x[shared : shared + 4 * len(coolings)].reshape(-1, 4)
        named = {name: (k, q, s, t) for name, (k, q, s, t) in zip(coolings, rows.tolist(), strict=True)}
        ambient = dict(zip(series, x[shared + 4 * len(coolings) :].tolist(), strict=True))
        return Fit(found, float(first), named, ambient)

    def errors(x: Floats) -> Floats:
        trial = unpack(x)
        parts = [
            (
                trial.kelvins(series[log.name], log.cooling)
                + trial.ambient[log.name]
                - series[log.name].celsius
            )[:until]
            for log in logs
        ]
        if loads is None:  # loads of one core that hardly show stay near what others are
            parts.append(_TRUST * (trial.loads[:8] - _USUAL))
        return np.concatenate(parts)

    start = np.array(
        ([_USUAL] * 8 + [0.9, 0.8, 0.3, 0.1] if shared else [])
        + [8.0, 15.0, 5.0, 120.0] * len(coolings)
        + [30.0] * len(logs)
    )
    low = np.array(
        [0.0] * shared + [1, 1, FAST_SECONDS[0], SLOW_SECONDS[0]] * len(coolings) + [0.0] * len(logs)
    )
    high = np.array(
        [2.0] * shared + [40, 60, FAST_SECONDS[1], SLOW_SECONDS[1]] * len(coolings) + [60.0] * len(logs)
    )
    best = least_squares(errors, start, bounds=(low, high), loss="soft_l1", x_scale=np.maximum(start, 0.1))
    return unpack(best.x)


@dataclass(frozen=True)
class LeftOut:
    """A log predicted from the others: kelvins rms over all its samples, and over those with all cores.
    `own`: whether its cooling had to be fitted to its own samples before those. `throttled`: with the
    kernel's throttling modelled."""

    log: str
    cooling: str
    own: bool
    ambient: float
    rms: float
    loaded_rms: float
    throttled: bool = False


@dataclass(frozen=True)
class Flips:
    """How a throttled board's clocks flip, between `low` and `high` °C. `samples_a_change`: seconds of the
    log's samples, 45 s apart, for each change between them; `period`: modelled seconds from one flip down to
    the next, which such samples cannot show."""

    published_samples_a_change: float
    modelled_samples_a_change: float
    period: float
    low: float
    high: float


def left_out(log: Log) -> tuple[LeftOut, Fit, Series]:
    """The log predicted by the four others."""
    others = [other for other in LOGS if other is not log]
    known, series = fit(others), read_series(log)
    before = series.loaded_from
    own = log.cooling not in known.coolings
    if own:
        alone = fit([log], loads=known.loads, until=before, begin=known.begin)
        known = Fit(known.loads, known.begin, {**known.coolings, **alone.coolings}, known.ambient)
    rise = known.kelvins(series, log.cooling)
    ambient = float(np.median((series.celsius - rise)[:before]))
    if log.name == THROTTLED:
        rise = np.array(
            [celsius - ambient for celsius, _, _ in throttled(known, series, log.cooling, ambient)]
        )
    error = rise + ambient - series.celsius
    return (
        LeftOut(
            log.name, log.cooling, own, ambient, _rms(error), _rms(error[before:]), log.name == THROTTLED
        ),
        known,
        series,
    )


def throttled(known: Fit, series: Series, cooling: str, ambient: float) -> list[tuple[float, float, float]]:
    """Celsius of the sensor, the clock in Hz and the temperature behind, at every sample, with the
    kernel's throttling."""
    return [points[-1] for points in _throttled(known, series, cooling, ambient)]


def _throttled(
    known: Fit, series: Series, name: str, ambient: float
) -> list[list[tuple[float, float, float]]]:
    cooling, unit = known.cooling(name), known.unit_watts
    heat = Heat(
        known.begin * unit * cooling.fast.kelvin_per_watt, known.begin * unit * cooling.slow.kelvin_per_watt
    )
    throttle, hz = Throttle(), CLOCKS[0]
    done = [[(_sensor(ambient + heat.kelvins), hz, ambient + heat.kelvins)]]
    for sample in range(1, len(series.seconds)):
        points = []
        load, weight = series.load[sample], series.weight[sample]
        full = load_factor(load, _ZIP, series.big_hz[sample])
        span = series.seconds[sample] - series.seconds[sample - 1]
        for _ in range(max(1, round(span / _SAMPLE_SECONDS))):
            units = float(weight @ known.loads) * load_factor(load, _ZIP, hz) / full
            heat = heat.after(cooling, units * unit, _SAMPLE_SECONDS)
            celsius = _sensor(ambient + heat.kelvins)
            hz = throttle.poll(celsius)
            points.append((celsius, hz, ambient + heat.kelvins))
        done.append(points)
    return done


def _sensor(celsius: float) -> float:
    return SENSOR_STEP * round(celsius / SENSOR_STEP)


def flips(known: Fit, series: Series, cooling: str, ambient: float) -> Flips:
    """Of the log that throttles, since it is at the trip."""
    hot = series.celsius >= TRIP_CELSIUS - HYSTERESIS
    first = int(np.argmax(hot))
    times, clocks = series.seconds[first:], series.big_hz[first:]
    published = np.count_nonzero(np.diff(clocks))
    points = [p for part in _throttled(known, series, cooling, ambient)[first + 1 :] for p in part]
    limited = np.array([hz < CLOCKS[0] for _, hz, _ in points])
    downs = np.flatnonzero(np.diff(limited.astype(int)) == 1)
    step = round(45 / _SAMPLE_SECONDS)
    # As the log was sampled, from every moment at which it might have begun.
    changes = [np.count_nonzero(np.diff(limited[begin::step].astype(int))) for begin in range(step)]
    spans = [len(limited[begin::step]) - 1 for begin in range(step)]
    inside = np.array([celsius for _, _, celsius in points[downs[0] :]])
    return Flips(
        published_samples_a_change=float(times[-1] - times[0]) / published,
        modelled_samples_a_change=45.0 * sum(spans) / sum(changes),
        period=float(np.mean(np.diff(downs))) * _SAMPLE_SECONDS,
        low=float(inside.min()),
        high=float(inside.max()),
    )


def _rms(error: Floats) -> float:
    return float(np.sqrt(np.mean(error**2)))


def figures() -> dict[str, Any]:
    """All that is printed."""
    whole = fit(LOGS)
    rows = {name: whole.cooling(name) for name in whole.coolings}
    tested = []
    flip = None
    for log in LOGS:
        one, known, series = left_out(log)
        tested.append(one)
        if log.name == THROTTLED:
            flip = flips(known, series, log.cooling, one.ambient)
    assert flip is not None
    return {
        "coolings": {
            name: {
                "fast_k_per_w": round(row.fast.kelvin_per_watt, 3),
                "fast_s": round(row.fast.seconds, 1),
                "slow_k_per_w": round(row.slow.kelvin_per_watt, 2),
                "slow_s": round(row.slow.seconds, 0),
            }
            for name, row in rows.items()
        },
        "fitted_rms_k": {
            log.name: round(
                _rms(
                    whole.kelvins(read_series(log), log.cooling)
                    + whole.ambient[log.name]
                    - read_series(log).celsius
                ),
                2,
            )
            for log in LOGS
        },
        "loads_w": {
            name: round(float(load) * whole.unit_watts, 2)
            for name, load in zip(LOADS, whole.loads, strict=True)
        },
        "left_out": [
            {
                key: round(value, 2) if isinstance(value, float) else value
                for key, value in asdict(one).items()
            }
            for one in tested
        ],
        "flips": {key: round(value, 1) for key, value in asdict(flip).items()},
    }


def show(found: dict[str, Any]) -> None:
    """Prints the figures for people."""
    print(f"constants, fitted to all five logs; four A76 that mine are taken at {WATTS:g} W")
    for name, row in found["coolings"].items():
        print(
            f"  {name:10} fast {row['fast_k_per_w']:.2f} K/W {row['fast_s']:4.1f} s   "
            f"slow {row['slow_k_per_w']:.2f} K/W {row['slow_s']:4.0f} s"
        )
    print("rms of that fit (K): " + ", ".join(f"{n} {e:.2f}" for n, e in found["fitted_rms_k"].items()))
    print("loads (W): " + ", ".join(f"{n} {w:.2f}" for n, w in found["loads_w"].items()))
    print("left out and predicted from the other four, rms in K: all samples, those with all cores")
    for one in found["left_out"]:
        how = "cooling fitted to its own samples before" if one["own"] else "cooling of another log"
        print(f"  {one['log']:8} {one['cooling']:10} {one['rms']:5.2f} {one['loaded_rms']:5.2f}   {how}")
    flip = found["flips"]
    print(
        f"{THROTTLED} throttled: modelled between {flip['low']:.1f} and {flip['high']:.1f} °C; a change of "
        f"clock between samples every {flip['modelled_samples_a_change']:.0f} s of samples 45 s apart, "
        f"published {flip['published_samples_a_change']:.0f} s; behind them a modelled period of "
        f"{flip['period']:.0f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    found = figures()
    text = json.dumps(found, indent=1)
    (RESULTS / "thermal.json").write_text(text + "\n", encoding="utf-8")
    if args.json:
        print(text)
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
