"""What the teacher is told: a passage, and which kind of question to write about it."""

from collections.abc import Mapping

from rockledge.distillation.question_answer.passages import Passage
from rockledge.model.chat import ChatTemplate
from rockledge.model.tokenizer import Tokenizer

# A passage is asked for each kind once, so it gives about as many pairs as there are kinds.
# What may be asked for, and how a pair of that kind looks for the example: small models imitate rather than
# follow rules. A passage is asked for each kind once, so it gives about as many pairs as there are kinds.
_KINDS = (
    (
        "asks for a fact, a name or a value",
        "How much water does the tank of the K2 coffee machine hold?",
        "The tank of the K2 coffee machine holds 1.2 litres.",
    ),
    (
        "asks how something is done",
        "How is the K2 coffee machine cleaned of lime?",
        "Fill the tank of the K2 with vinegar and water, and hold both buttons for five seconds.",
    ),
    (
        "asks what something is, or what it is for",
        "What is the red lamp of the K2 coffee machine for?",
        "The red lamp of the K2 shows that the machine must be cleaned of lime.",
    ),
    (
        "asks when or why something applies",
        "When must the K2 coffee machine be cleaned of lime?",
        "The K2 must be cleaned of lime when its red lamp blinks.",
    ),
    (
        "asks what to do about a problem or a mistake",
        "What helps when the red lamp of the K2 coffee machine blinks?",
        "Clean the machine of lime with vinegar and water; then the red lamp goes out.",
    ),
    (
        "asks about a limit, a condition or a difference",
        "How full may the tank of the K2 coffee machine be for cleaning?",
        "For cleaning, the tank of the K2 may be filled to the lower mark at most.",
    ),
)
KINDS = tuple(kind for kind, _, _ in _KINDS)
_EXAMPLE = Passage(
    0,
    "K2 coffee machine > Cleaning",
    "The tank holds 1.2 litres. When the red lamp blinks, the machine must be cleaned of lime: fill the tank "
    "with vinegar and water, to the lower mark at most, and hold both buttons for five seconds. Then the "
    "lamp goes out.",
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

_FORM = "Question: {question}\nAnswer: {answer}"

# For models that were never taught to follow instructions.
_TEXT = """{heading}

{text}

A question about this that {kind}, and its answer:

"""
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
        _, question, answer = _KINDS[kind]
        shown = _FORM.format(question=question, answer=answer)
        if self._chat is None:
            example, text = (
                _TEXT.format(heading=one.heading, text=one.text, kind=KINDS[kind])
                for one in (_EXAMPLE, passage)
            )
            return self._tokenizer.encode(f"{example}{shown}\n\n\n{text}{_BEGUN}", bos=True)
        said = self._chat.render(
            [
                {"role": "user", "content": _task(_EXAMPLE, kind)},
                {"role": "assistant", "content": shown},
                {"role": "user", "content": _task(passage, kind)},
            ],
            # Models that can think before they answer are asked not to (Qwen3 reads this variable).
            switches={"enable_thinking": False},
        )
        return self._tokenizer.encode(said, bos=False)

    def around(self) -> int:
        """Tokens of the longest prompt for an empty passage."""
        return max(len(self.ids(Passage(0, "", ""), kind)) for kind in range(len(KINDS)))

    def decode(self, ids: list[int]) -> str:
        """The text of an output."""
        return self._tokenizer.decode(ids)


def _task(passage: Passage, kind: int) -> str:
    origin = f' from "{passage.heading}"' if passage.heading else ""
    return _TASK.format(origin=origin, text=passage.text, kind=KINDS[kind])
