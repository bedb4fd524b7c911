"""A tokenizer that makes other tokens than the reference's."""

from collections.abc import Iterator

from rockledge.doctor.case import Case
from rockledge.doctor.finding import Finding, NewFiles
from rockledge.model.tokenizer import Tokenizer

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_TEXTS = (
    "The quick brown fox jumps over the lazy dog 1234567890 times.",
    "  def f(x):\n\treturn {'a': [x, 2**0.5]}  # naïve café",
    "Straße, 東京, Привет, مرحبا, 🙂🙂",
    "\n\n  \t leading and trailing space  ",
)


def check_tokenizer(case: Case) -> Iterator[Finding]:
    """On a few texts of all kinds."""
    if case.reference is None:
        return
    theirs = Tokenizer.from_files(case.reference_files, rows=case.reference.config.vocab)
    for text in _TEXTS:
        found, wanted = case.tokenizer.encode(text, bos=True), theirs.encode(text, bos=True)
        if found != wanted:
            at = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), 0)
            yield Finding(
                check="tokenizer",
                place="tokenizer.json",
                severity="alarm",
                cause=f"the tokenizer makes {found[at : at + 4]} of {text[:20]!r} from token {at} on, that "
                f"of the reference {wanted[at : at + 4]}",
                mend="take the reference's tokenizer",
                change=NewFiles({name: case.reference_files.get(name) for name in FILES}),
            )
            return
