"""Whether teacher and student read text as the same tokens, without which their logits cannot be compared."""

from collections.abc import Mapping

from rockledge.errors import UsageError
from rockledge.model.tokenizer import Tokenizer

# Splits that differ between tokenizers with one vocabulary: digits, spaces, contractions, case, scripts.
_PROBE = (
    "It's 12345.67 kg,  don't\tWAIT\n\n  x = f(a_b, 10) # café Straße naïve\r\n"
    "https://example.org/?q=1 Привет 你好 🙂 I'LL"
)


def check_same_tokenizer(teacher: Mapping[str, bytes], student: Mapping[str, bytes]) -> None:
    """Raises UsageError unless both sets of tokenizer files give every token the same id, and a text the same
    tokens. Tokens that one of them lacks at the end (padding, added markers) do not matter."""
    one, other = Tokenizer.from_files(teacher), Tokenizer.from_files(student)
    shared = min(one.size, other.size)
    differ = next((i for i in range(shared) if one.token_bytes(i) != other.token_bytes(i)), None)
    why = None
    if differ is not None:
        pieces = [tokenizer.token_bytes(differ)[:40] for tokenizer in (one, other)]
        why = f"token {differ} is {pieces[0]!r} for one and {pieces[1]!r} for the other"
    elif one.encode(_PROBE, bos=True) != other.encode(_PROBE, bos=True):
        why = "they split the same text into different tokens"
    if why is not None:
        raise UsageError(
            f"teacher and student have different tokenizers ({why}), so logits cannot be compared; prune a "
            "student from this teacher, take both from one family, or let the teacher write text and train "
            "on it with --data-weight 1"
        )
