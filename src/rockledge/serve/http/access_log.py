"""The log of requests without what may be secret in them: addresses lose what comes after the question mark.
What the console asks every two seconds is left out.

uvicorn's line has the client, method, address, version and status; bodies and headers it never has.
"""

from __future__ import annotations

import logging

POLLED = "/console/state"


class WithoutQuery(logging.Filter):
    """Cuts the address of uvicorn's access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record, and says whether it is shown."""
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, address, version, status = record.args
            path = str(address).partition("?")[0]
            record.args = (client, method, path, version, status)
            return path != POLLED or status != 200
        return True
