"""Every error a user can see: one small family, each one sentence.

It is lower case, without a full stop: what was found, what was expected, what to do (CONTRIBUTING.md).

A command prints the sentence and exits with `exit_code`; a library caller catches `RockledgeError`.
"""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" for the known word that is most like a mistyped one, "" where none is."""
    found = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


class RockledgeError(Exception):
    """Base of all foreseeable failures; `str(error)` is the sentence shown to the user."""

    exit_code = 1


class UsageError(RockledgeError):
    """The request itself makes no sense (unknown option value, impossible combination)."""

    exit_code = 2


class CheckpointError(RockledgeError):
    """A source model is missing, damaged, unsupported or already quantised by another scheme."""


class ArtifactError(RockledgeError):
    """An artifact directory is missing, damaged, newer than this program, or could not be written."""


class DiskError(RockledgeError):
    """A disk failed while something was read from it that another try may get."""


class BudgetError(RockledgeError):
    """No allocation meets the budget; the message names the nearest possible one."""


class ContextError(RockledgeError):
    """A prompt does not fit in the context that was configured."""


class NativeError(RockledgeError):
    """The native core is missing, of another version, or refused what it was given."""


class NpuError(RockledgeError):
    """An NPU program, its memory or a shape asked of the NPU breaks a rule; the message names the rule."""


class TrainingError(RockledgeError):
    """A training run cannot go on; the message says where it stopped and what of it is kept."""
