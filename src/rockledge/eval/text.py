"""Reading a text to be scored: byte for byte, so that every tool cuts it into the same tokens."""

from pathlib import Path

from rockledge.errors import UsageError


def read_text(path: Path) -> str:
    """The file as stored, with its own line ends: turning CR LF into LF would change tokens and all numbers.

    UsageError when the file is missing or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UsageError(f"the text {path} could not be read ({error.strerror}); name a text file") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the text {path} is not UTF-8 (byte {error.start}); convert it, for example with iconv"
        ) from error
