"""Text as a terminal may show it: no character of it moves the cursor or changes the terminal."""

import unicodedata

REPLACEMENT = "\ufffd"
_CONTROLS = {code: REPLACEMENT for code in range(0x100) if unicodedata.category(chr(code)) == "Cc"}
_SAFE = {**_CONTROLS, ord("\n"): "\n", ord("\t"): "\t", ord("\r"): None}


def safe(text: str) -> str:
    """`text` with U+FFFD for control characters (C0, C1 and delete), except ends of lines and tabs."""
    return text.translate(_SAFE)
