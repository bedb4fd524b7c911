r"""Regular expressions of others, matched with names of modules in a time that grows with both lengths.

Python's `re` tries one way after another: (a+)+ takes 2^n of them for a name of n letters, and an adapter
that somebody published must not stop `quantize` for ever. RE2 follows all ways together
(github.com/google/re2). It does not know what looks around or back; nobody has needed that for names of
modules.
"""

import re
from importlib.util import find_spec
from typing import Any, Final

from rockledge.errors import RockledgeError, UsageError
from rockledge.pip_command import pip_install

_UNBOUNDED_BELOW: Final = re.compile(r"\{,[0-9]*\}")  # a repetition for `re`, plain text for RE2
_MEMORY: Final = 8 << 20  # bytes of one pattern and of what matching it remembers; RE2's own default


class NamePattern:
    """A pattern of `re`, which a whole name matches or does not.

    Raises re.error, OverflowError or RecursionError where `re` does, UsageError for what RE2 does not know,
    and RockledgeError where it is not installed.
    """

    def __init__(self, pattern: str) -> None:
        re.compile(pattern)
        if find_spec("re2") is None:
            raise RockledgeError(
                "an adapter with patterns needs google-re2, which is not installed; run: "
                f"{pip_install('google-re2')}"
            )
        import re2

        options = re2.Options()
        options.log_errors, options.max_mem = False, _MEMORY
        try:
            if found := _UNBOUNDED_BELOW.search(pattern):
                raise re2.error(f"bad repetition: {found[0]}")
            self._compiled: Any = re2.compile(pattern, options)
        except re2.error as error:
            said = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
            raise UsageError(
                f"the pattern {pattern[:60]!r} has a form that is not known here ({said[:80]})"
            ) from error

    def matches(self, name: str) -> bool:
        """Whether all of `name` is what the pattern says."""
        return self._compiled.fullmatch(name) is not None
