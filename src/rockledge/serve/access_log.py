"""The log of requests without what may be secret in them: addresses lose what comes after the question mark.

uvicorn's line has the client, method, address, version and status; bodies and headers it never has.
"""

from __future__ import annotations

import logging


class WithoutQuery(logging.Filter):
    """Cuts the address of uvicorn's access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record; it is always shown."""
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, address, version, status = record.args
            record.args = (client, method, str(address).partition("?")[0], version, status)
        return True
