"""Days, months and units: what comes next, and how many of a smaller unit are in a larger one."""

from random import Random

from rockledge.eval.probes.probe import Question, distinct

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
_UNITS = (
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("years", "months", 12),
    ("metres", "centimetres", 100),
    ("kilograms", "grams", 1000),
    ("kilometres", "metres", 1000),
)
_STEPS = ("", "one", "two", "three", "four")


def question(random: Random) -> Question:
    """A step in the calendar, or a conversion."""
    return random.choice((_calendar, _calendar, _units))(random)


def _calendar(random: Random) -> Question:
    cycle, unit = random.choice(((_DAYS, "day"), (_MONTHS, "month")))
    start, step = random.randrange(len(cycle)), random.randint(1, 4)
    forward = random.random() < 0.5
    end = start + step if forward else start - step
    text = f"{_STEPS[step]} {unit}{'s' * (step > 1)} {'after' if forward else 'before'} {cycle[start]} is"
    near = [cycle[(end + miss) % len(cycle)] for miss in random.sample((-2, -1, 1, 2), 3)]
    return Question(
        text.capitalize().replace(cycle[start].lower(), cycle[start]),
        distinct(f" {cycle[end % len(cycle)]}", [f" {name}" for name in near], 4),
        0,
    )


def _units(random: Random) -> Question:
    large, small, factor = random.choice(_UNITS)
    count = random.randint(2, 12)
    right = count * factor
    wrong = [(count + miss) * factor for miss in random.sample((-1, 1, 2), 3)]
    return Question(
        f"{count} {large} are as many {small} as",
        distinct(f" {right}", [f" {n}" for n in wrong if n > 0], 3),
        0,
    )
