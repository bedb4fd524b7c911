"""Schedules of what goes wrong with an NPU while requests run: chosen ones, and random ones from a seed.

The toy's engine proves each core with a job and all together with two, tries its programs with nine, then
gives the device eight for a step of a prompt. With mainline's driver each is three, but for the first ones:
`at` counts jobs of the vendor's, and `for_driver` makes the other count.
"""

from dataclasses import dataclass

import numpy as np

from rockledge_npu_lab.virtual.device_faults import JOB, KINDS

CORES = 3
STAYS = 1000
"""As often as anybody asks."""
PROVEN = 5
"""Jobs that prove the cores: each alone, all together, and those once more, which may be repeated later."""
TRIED = 9
"""Programs that are tried: three shapes, three step sizes."""
FIRST = 1 + PROVEN + TRIED
SECOND = FIRST + 8
THIRD = SECOND + 8
"""The first jobs of steps."""


@dataclass(frozen=True)
class Chosen:
    """`faults` as in a faults file, and how the NPU stands when all requests are answered."""

    name: str
    faults: tuple[dict[str, object], ...]
    state: str


def fault(kind, at=1, times=1, **more):
    return {"kind": kind, "at": at, "times": times, **more}


EIO, EINVAL = {"errno": "EIO"}, {"errno": "EINVAL"}
SOON, TOO_LATE = {"seconds": 0.05}, {"seconds": 1.0}
LOST_TWICE = (fault("lost", FIRST + 4), fault("lost", THIRD + 2))
EVERY_ROW = {"every": 1, "rows": 64}

# Jobs have 0.6 s.
CHOSEN = (
    Chosen("the first job of a step is lost", (fault("lost", FIRST),), "ready"),
    Chosen("the last job of a step is lost", (fault("lost", SECOND - 1),), "ready"),
    Chosen("the probe is lost", (fault("lost"),), "ready"),
    Chosen("a job of two steps is lost", LOST_TWICE, "ready"),
    Chosen("every job is lost from the third block on", (fault("lost", FIRST + 2, STAYS),), "failed"),
    Chosen("a job reports success and did not run", (fault("skipped", FIRST + 3),), "ready"),
    Chosen("no job runs from the second step on", (fault("skipped", SECOND, STAYS),), "failed"),
    Chosen("no job ever runs", (fault("skipped", 1, STAYS),), "unusable"),
    Chosen("a job is late, and in time", (fault("late", FIRST + 5, **SOON),), "ready"),
    Chosen("a job is too late", (fault("late", FIRST + 5, **TOO_LATE),), "ready"),
    Chosen("jobs are too late from a block on", (fault("late", SECOND + 2, STAYS, **TOO_LATE),), "failed"),
    Chosen("a job ends in an error", (fault("error", FIRST + 1, **EIO),), "ready"),
    Chosen("the driver refuses a job", (fault("error", FIRST + 6, **EINVAL),), "ready"),
    Chosen("every job of a step ends in an error", (fault("error", FIRST, STAYS, **EIO),), "failed"),
    Chosen("the device goes before its first job", (fault("gone"),), "unusable"),
    Chosen("the device goes within the first step", (fault("gone", FIRST + 6),), "failed"),
    Chosen("the device goes between the steps", (fault("gone", SECOND),), "failed"),
    Chosen("the device goes during a reset", (fault("lost", FIRST + 4), fault("gone", FIRST + 5)), "failed"),
    Chosen("the first output behind a reset is wrong", (fault("lost", FIRST + 4), fault("wrong")), "ready"),
    Chosen("outputs are wrong behind every reset", (*LOST_TWICE, fault("wrong", 1, STAYS)), "ready"),
    Chosen("the first buffer is refused", (fault("refused", 1, errno="ENOMEM"),), "unusable"),
    Chosen("a late buffer is refused", (fault("refused", 20, errno="ENOMEM"),), "unusable"),
    Chosen("the device has too little memory", (fault("memory", bytes=1 << 18),), "unusable"),
    Chosen("the device has hardly any memory", (fault("memory", bytes=1 << 12),), "unusable"),
    Chosen("another process has the cores for a moment", (fault("busy", FIRST + 3, **SOON),), "ready"),
    Chosen("another process has the cores for too long", (fault("busy", FIRST + 3, **TOO_LATE),), "ready"),
    Chosen("another process keeps the cores", (fault("busy", THIRD + 2, STAYS, **TOO_LATE),), "failed"),
    Chosen("another process had the cores before", (fault("busy", 1, STAYS, **TOO_LATE),), "unusable"),
    Chosen("another process has locked the device", (fault("locked", 1, STAYS),), "unusable"),
    Chosen("this user may not open it", (fault("denied", 1, STAYS),), "unusable"),
    Chosen("the device goes while programs are tried", (fault("gone", PROVEN + 4),), "unusable"),
    Chosen("a program that is tried is lost", (fault("lost", PROVEN + 3),), "ready"),
    Chosen("a program tried is lost twice", (fault("lost", PROVEN + 3), fault("lost", PROVEN + 5)), "ready"),
    Chosen("a program that is tried is wrong", (fault("wrong_rows", PROVEN + 4, **EVERY_ROW),), "ready"),
    Chosen("a program that is tried leaves what was there", (fault("stale_output", PROVEN + 4),), "ready"),
    Chosen("all programs are wrong", (fault("wrong_rows", PROVEN + 1, STAYS, **EVERY_ROW),), "unusable"),
    Chosen("a program does not run", (fault("skipped_program", FIRST + 3, program=1),), "ready"),
    Chosen("a program never runs", (fault("skipped_program", SECOND, STAYS, program=1),), "failed"),
    Chosen("rows of a job are wrong", (fault("wrong_rows", FIRST + 3, **EVERY_ROW),), "ready"),
    Chosen("rows are wrong from a job on", (fault("wrong_rows", SECOND + 1, STAYS, **EVERY_ROW),), "failed"),
    Chosen("two signs of a row are wrong", (fault("flipped_bits", FIRST + 3),), "ready"),
    Chosen("a job leaves what was there", (fault("stale_output", SECOND + 3),), "ready"),
    Chosen("jobs leave what was there", (fault("stale_output", SECOND + 3, STAYS),), "failed"),
    Chosen("a core dies", (fault("dead_core", FIRST + 4, core=1),), "failed"),
    Chosen("a core dies and says nothing", (fault("dead_core", FIRST, core=2, how="nothing"),), "failed"),
    Chosen("the driver waits three times", (fault("lost", FIRST + 3, waits=3),), "ready"),
    Chosen("the clock is slow", (fault("slow_clock", hertz=200_000_000),), "ready"),
)  # fmt: skip


def for_driver(faults, driver, core=0):
    """The same faults in that driver's count of jobs; with a job for each core they begin at `core`.

    The first three jobs are of one core each with either driver.
    """
    if driver == "rknpu":
        return list(faults)

    def mainline(at):
        return at if at <= CORES else CORES + CORES * (at - CORES - 1) + 1 + core

    return [{**one, "at": mainline(one["at"])} if KINDS[one["kind"]].counts == JOB else one for one in faults]


@dataclass(frozen=True)
class Drawn:
    """A random schedule: for which driver, its faults, and what is asked meanwhile.

    `requests`: (tokens of the prompt, tokens of the answer, 0 for logits), `at_once` or one by one.
    """

    driver: str
    mode: str
    streamed: bool
    faults: tuple[dict[str, object], ...]
    requests: tuple[tuple[int, int], ...]
    at_once: bool


_KINDS_OF_JOBS = tuple(kind for kind in KINDS if KINDS[kind].counts == JOB)
_LAST = {"job": PROVEN + TRIED + 24, "allocation": 40, "reset": 3, "open": 3, "device": 1}
_PROMPTS = (1, 3, 20, 64, 65, 100)  # one token stays on the CPU; the longest two fit into the cache together


def drawn(seed, slowest):
    """The schedule of a seed; faults that take time take up to `slowest` seconds.

    Two faults of three are of jobs, so that most devices come as far as having any; "wrong" needs a reset,
    so a fault that brings one goes with it.
    """
    random = np.random.default_rng(seed)
    driver = ("rknpu", "rocket")[seed % 2]
    kinds = [
        str(random.choice(_KINDS_OF_JOBS if random.random() < 0.67 else list(KINDS)))
        for _ in range(int(random.integers(1, 5)))
    ]
    if "wrong" in kinds:
        kinds.append("lost")
    faults = [_fault(random, kind, slowest) for kind in kinds]
    at_once = bool(random.random() < 0.5)
    requests = [
        (int(random.choice(_PROMPTS)), int(random.choice([0, 0, 2])))
        for _ in range(int(random.integers(1, 3 if at_once else 4)))
    ]
    return Drawn(
        driver,
        mode="require" if random.random() < 0.25 else "auto",
        streamed=bool(random.random() < 0.3),
        faults=tuple(for_driver(faults, driver, int(random.integers(CORES)))),
        requests=tuple(requests),
        at_once=at_once,
    )


def _fault(random, kind, slowest):
    values = {
        "seconds": float(random.uniform(0, slowest)),
        "errno": str(random.choice(["EIO", "EINVAL", "ENOMEM", "ETIMEDOUT"])),
        "bytes": int(2 ** random.uniform(12, 23)),
        "core": int(random.integers(CORES)),
        "hertz": int(random.choice([200_000_000, 600_000_000])),
        "program": int(random.choice([1, 2, -1])),
        "every": int(random.integers(1, 4)),
        "rows": int(random.choice([1, 2, 64])),
        "bit": int(random.integers(32)),
        "how": str(random.choice(["lost", "error", "nothing"])),
    }
    takes = KINDS[kind].takes
    may_take = [key for key in KINDS[kind].may_take if key in values and random.random() < 0.5]
    # What only takes time would take all of it if it stayed.
    often = 6 if "seconds" in takes else STAYS
    return fault(
        kind,
        int(random.integers(1, _LAST[KINDS[kind].counts] + 1)),
        int(random.choice([1, 1, 1, 2, 3, often])),
        **{key: values[key] for key in (*takes, *may_take)},
    )
