"""What clients say: pieces of one text, no two of which begin alike."""

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.models import alice
from rockledge.artifact import open_artifact
from rockledge.model.tokenizer import Tokenizer


@dataclass
class Prompts:
    """Pieces of a text, as token ids and as words; every call gives another one."""

    ids: list[int]
    words: list[str]
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def again(self, run: int) -> "Prompts":
        """The pieces of one run, the same for whoever asks."""
        return replace(self, chance=random.Random(run))

    def tokens(self, count: int) -> list[int]:
        """`count` ids in the text's order, from a random place of it."""
        start = self.chance.randrange(len(self.ids) - count)
        return self.ids[start : start + count]

    def text(self, words: int) -> str:
        """`words` words in the text's order, from a random place of it."""
        start = self.chance.randrange(len(self.words) - words)
        return " ".join(self.words[start : start + words])


def alice_as_read_by(artifact: Path) -> Prompts:
    """Alice in Wonderland in the tokens of an artifact's tokenizer. Raises UnavailableError."""
    text = alice().read_text()
    tokenizer = Tokenizer.from_files(open_artifact(artifact).files)
    return Prompts(tokenizer.encode(text, bos=False), text.split())
