"""What an engine measures of itself besides counting: times of answers and steps, and how full steps are."""

from rockledge.runtime.histogram import Observed

FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)
TOKEN_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 10)
STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 5, 20)
SEQUENCES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class EngineTimes:
    """`first_token`: seconds from a request's arrival to the first token of its answer; `token`: between two
    of its tokens; `step`: of a step; `sequences`: that a step worked on."""

    def __init__(self) -> None:
        self.first_token = Observed(FIRST_TOKEN_S)
        self.token = Observed(TOKEN_S)
        self.step = Observed(STEP_S)
        self.sequences = Observed(SEQUENCES)

    def drawn(self, arrived: float, before: float | None, now: float) -> None:
        """A token was drawn `now`, the one before it at `before` (None: it is the first)."""
        if before is None:
            self.first_token.add(now - arrived)
        else:
            self.token.add(now - before)

    def ran(self, seconds: float, sequences: int) -> None:
        """A step ended."""
        self.step.add(seconds)
        self.sequences.add(sequences)
