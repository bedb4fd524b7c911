r"""Patterns of JSON schemas as Rust's regex crate, which llguidance has, reads them.

JSON Schema's patterns are those of ECMA-262 (json-schema.org/draft/2020-12/json-schema-core, section 6.4).
Rust has further signs in them (docs.rs/regex, "Syntax"): sets within sets, \A, flags such as (?x). What a
pattern says is written so that nothing fits which does not fit it in ECMA-262 and in Python's `re` too, by
which answers are checked; so \w and \d are ASCII, as in ECMA-262.
"""

import re

from rockledge.errors import UsageError

# What stands for an escape outside of a set, within one, and within a set of what must not come.
_OPPOSITES = {"D": r"[^\p{Nd}]", "W": r"[^\p{L}\p{M}\p{N}_]", "S": r"[^\s\x1c-\x1f]"}
_OUTSIDE = {"d": "[0-9]", "w": "[0-9A-Za-z_]", **_OPPOSITES}
_WITHIN = {"d": "0-9", "w": "0-9A-Za-z_", **_OPPOSITES}
_EXCLUDED = {
    "d": r"\p{Nd}",
    "w": r"\p{L}\p{M}\p{N}_",
    "s": r"\s\x1c-\x1f",
    "D": "[^0-9]",
    "W": "[^0-9A-Za-z_]",
}

_CLASSES = frozenset("dDwWsS")
_ONLY_RUST = re.compile(r"\\([AazU<>]|x\{|[pP][^{]|b\{)")
_NEGATED = re.compile(r"\\P\{")
_NUL = re.compile(r"\0|\\x00|\\u0000|\\u\{0+\}")
_DASHES = re.compile("--")
_FLAGS = re.compile(r"\(\?[ims-]*[a-hj-ln-rt-zA-Z][a-zA-Z-]*[:)]")


def portable_pattern(pattern: str) -> str:
    """The pattern in Rust's signs. Raises UsageError for signs that ECMA-262 does not have."""
    pieces: list[str] = []
    place = 0
    while place < len(pattern):
        start, sign = place, pattern[place]
        if sign == "[":
            written, place = _set(pattern, place)
            pieces.append(written)
        elif sign == "\\":
            _check(_ONLY_RUST, pattern, place)
            _check(_NEGATED, pattern, place)
            escaped = pattern[place + 1 : place + 2]
            place += 2
            pieces.append(_OUTSIDE.get(escaped, pattern[start:place]))
        else:
            _check(_FLAGS, pattern, place)
            place += 1
            pieces.append(sign)
    return "".join(pieces)


def _set(pattern: str, start: int) -> tuple[str, int]:
    """The set of characters that begins at `start`, and its end."""
    opening = "[^" if pattern.startswith("[^", start) else "["
    place = start + len(opening)
    if pattern.startswith("]", place):  # empty in ECMA-262, for others the first character of the set
        raise _unsupported(pattern, f"{opening}]")
    signs: list[str] = []
    while place < len(pattern) and pattern[place] != "]":
        _check(_ONLY_RUST, pattern, place)
        _check(_NEGATED, pattern, place)
        _check(_DASHES, pattern, place)
        signs.append(pattern[place : place + (2 if pattern[place] == "\\" else 1)])
        place += len(signs[-1])
    escapes = _EXCLUDED if opening == "[^" else _WITHIN
    classes = {sign[1:] for sign in signs if sign[1:] in _CLASSES}
    # llguidance 1.9.1 lets quotes and backslashes through wherever a set has U+0000.
    pieces = [r"[^\x00" if opening == "[^" else opening]
    if opening == "[" and (found := _NUL.search("".join(signs))):
        raise _unsupported(pattern, found[0])
    for before, sign, after in zip(["", *signs], signs, [*signs[1:], ""], strict=False):
        if sign[1:] in classes:
            # With its opposite it is every character.
            whole = sign[1:].swapcase() in classes
            pieces.append(sign if whole else escapes.get(sign[1:], sign))
        elif sign == "-" and (not before or not after or before[1:] in classes or after[1:] in classes):
            pieces.append(r"\-")
        else:  # Rust has sets within sets, and && and ~~ between them
            pieces.append(f"\\{sign}" if sign in "[&~" else sign)
    return "".join([*pieces, pattern[place : place + 1]]), place + 1


def _check(refused: re.Pattern[str], pattern: str, place: int) -> None:
    if found := refused.match(pattern, place):
        raise _unsupported(pattern, found[0])


def _unsupported(pattern: str, sign: str) -> UsageError:
    return UsageError(
        f"the JSON schema has the pattern {pattern[:60]!r} with {sign[:20]!r}, which is not supported; "
        "write it in another way"
    )
