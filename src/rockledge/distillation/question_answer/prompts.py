"""What the teacher is told: a passage, and which kind of question to write about it."""

from collections.abc import Mapping

from rockledge.distillation.question_answer.passages import Passage
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer

# A passage is asked for each kind once, so it gives about as many pairs as there are kinds.
KINDS = (
    "asks for a fact, a name or a value",
    "asks how something is done",
    "asks what something is, or what it is for",
    "asks when or why something applies",
    "asks what to do about a problem or a mistake",
    "asks about a limit, a condition or a difference",
)

_TASK = """Read this passage{origin}.

<passage>
{text}
</passage>

Write one question that {kind}, and its answer.
- The passage answers the question.
- Its reader does not have the passage: name what it is about, and do not speak of a passage or text.
- The answer says only what the passage says, in one to three complete sentences.
- Both are in the language of the passage.

Write nothing else than this form:
Question: ...
Answer: ..."""

# For models that were never taught to follow instructions.
_TEXT = """{heading}

{text}

A question about this that {kind}, and its answer:

Question:"""
_BEGUN = "Question:"  # what such a model's output goes on from


class Prompts:
    """Prompts of one teacher as token ids; one without a chat template gets a text to go on with."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._tokenizer = Tokenizer.from_files(files)
        self._chat = ChatTemplate.from_files(files)

    @property
    def begun(self) -> str:
        """What every output is to be read after."""
        return _BEGUN if self._chat is None else ""

    def tokens(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._tokenizer.encode_plain(text))

    def ids(self, passage: Passage, kind: int) -> list[int]:
        """The prompt for a kind of question; UsageError where the chat template refuses it."""
        if self._chat is None:
            text = _TEXT.format(heading=passage.heading, text=passage.text, kind=KINDS[kind])
            return self._tokenizer.encode(text, bos=True)
        origin = f' from "{passage.heading}"' if passage.heading else ""
        task = _TASK.format(origin=origin, text=passage.text, kind=KINDS[kind])
        # Models that can think before they answer are asked not to (Qwen3 reads this variable).
        said = self._chat.render([{"role": "user", "content": task}], switches={"enable_thinking": False})
        return self._tokenizer.encode(said, bos=False)

    def around(self) -> int:
        """Tokens of the longest prompt for an empty passage."""
        return max(len(self.ids(Passage(0, "", ""), kind)) for kind in range(len(KINDS)))

    def decode(self, ids: list[int]) -> str:
        """The text of an output."""
        return self._tokenizer.decode(ids)
