"""What is left when one of two possibilities is ruled out."""

from random import Random

from rockledge.eval.probes.probe import Question
from rockledge.eval.probes.words import COLOURS, NAMES


def question(random: Random) -> Question:
    """A box is one of two colours and not one of them; the sentence may name the denied one last."""
    owner = random.choice(NAMES)
    right, wrong = random.sample(COLOURS, 2)
    pair = random.sample((right, wrong), 2)
    denied = random.choice((f"It is not {wrong}.", f"Nobody says that it is {wrong}, because it is not."))
    text = f"{owner}'s box is either {pair[0]} or {pair[1]}. {denied} So the box is"
    return Question(text, (f" {right}", f" {wrong}"), 0)
