"""The keys of a running server: whose a key is, whether its limits leave room, and what it has taken.

The file is looked at again when a request comes and a second has passed. One that is wrong then, or gone,
changes nothing: the keys from before stay, and the log says so.
"""

from __future__ import annotations

import hmac
import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rockledge.errors import UsageError
from rockledge.runtime.request import Request
from rockledge.serve.errors import ApiError
from rockledge.serve.safety.key_file import SALT_BYTES, Key, hashed, id_of, read_keys
from rockledge.serve.safety.key_use import KeyUse, Window

LOOK_SECONDS = 1.0
PRIORITIES = 1 << 40
"""From one priority of keys to the next: more than requests can ask for by themselves."""

log = logging.getLogger(__name__)


class Keys:
    """The keys of `path`. All of it belongs to the event loop's thread."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Raises:
            UsageError: the file is wrong, or has no key.
        """
        self._path = path
        self._clock = clock
        self._decoy = Key("", "", secrets.token_bytes(SALT_BYTES), secrets.token_bytes(32))
        self._used: dict[str, KeyUse] = {}
        self._seen = _state(path)
        self._looked = clock()
        self._take(read_keys(path))
        if not self._by_id:
            raise UsageError(
                f"{path} has no key, so nobody could ask; make one with: rockledge keys add NAME"
            )

    def __len__(self) -> int:
        return len(self._by_id)

    def _take(self, keys: Sequence[Key]) -> None:
        self._by_id = {key.id: key for key in keys}
        self._by_name = {key.name: key for key in keys}

    def reload(self) -> None:
        """Reads the file again."""
        self._seen = _state(self._path)
        try:
            keys = read_keys(self._path)
        except UsageError as error:
            log.error("keys: those from before stay: %s", error)
            return
        self._take(keys)
        log.info("keys: %d read from %s", len(keys), self._path)

    def renew(self) -> None:
        """Reads the file again if it has changed."""
        if self._clock() - self._looked >= LOOK_SECONDS:
            self._looked = self._clock()
            if _state(self._path) != self._seen:
                self.reload()

    def find(self, given: str) -> Key | None:
        """Whose `given` is. What is not a key takes the same steps as one."""
        key = self._by_id.get(id_of(given))
        compared = self._decoy if key is None else key
        same = hmac.compare_digest(hashed(compared.salt, given), compared.digest)
        return key if same else None

    def begin(self, key: Key) -> None:
        """Counts a request of `key`, which `end` follows.

        Raises:
            ApiError: 429; then it is not counted.
        """
        use, limits = self._use(key.name), key.limits
        if limits.concurrent is not None and use.concurrent >= limits.concurrent:
            raise _too_many(
                f"this key has {use.concurrent} requests at work, as many as it may have at a time", 1.0
            )
        if limits.requests_per_minute is not None and use.requests.total >= limits.requests_per_minute:
            raise _too_many(
                f"this key may make {limits.requests_per_minute} requests a minute",
                use.requests.seconds_until(limits.requests_per_minute - 1),
            )
        self._check_tokens(key, 0)
        use.requests.add(1)
        use.concurrent += 1

    def end(self, key: Key) -> None:
        """A request is over."""
        self._use(key.name).concurrent -= 1

    def admit(self, requests: Sequence[Request]) -> list[Request]:
        """The requests of one call as their key's limits have them. Its prompts are counted, each once.

        A request may put itself behind others, not before them: only its key can.

        Raises:
            ApiError: 429 where the prompts are more than is left of the day, 401 where the key is gone.
        """
        key = self._by_name.get(requests[0].client)
        if key is None:
            raise unknown_key("the API key of this request was removed while it was read")
        prompts = sum({id(request.prompt): len(request.prompt) for request in requests}.values())
        self._check_tokens(key, prompts)
        self._use(key.name).tokens.add(prompts)
        most = key.limits.answer_tokens
        return [
            replace(
                request,
                max_tokens=request.max_tokens if most is None else min(request.max_tokens, most),
                priority=key.limits.priority * PRIORITIES + min(request.priority, 0),
            )
            for request in requests
        ]

    def charge(self, name: str, tokens: int) -> None:
        """Tokens of an answer."""
        self._use(name).tokens.add(tokens)

    def headers(self, key: Key) -> dict[str, str]:
        """How much is left of the limits, as OpenAI's headers say it
        (https://platform.openai.com/docs/guides/rate-limits)."""
        use = self._use(key.name)
        found = _left("requests", key.limits.requests_per_minute, use.requests)
        return {**found, **_left("tokens", key.limits.tokens_per_day, use.tokens)}

    def _check_tokens(self, key: Key, more: int) -> None:
        """An answer that has begun may go beyond the limit; nothing begins after that."""
        most, used = key.limits.tokens_per_day, self._use(key.name).tokens
        if most is None or (used.total < most and used.total + more <= most):
            return
        if more > most:
            raise ApiError(
                f"the prompt has {more} tokens, and this key may use {most} a day; shorten the prompt",
                status=429,
                code="rate_limit_exceeded",
            )
        raise _too_many(
            f"this key may use {most} tokens a day and has used {used.total}",
            used.seconds_until(most - max(more, 1)),
        )

    def _use(self, name: str) -> KeyUse:
        return self._used.setdefault(name, KeyUse(self._clock))


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def unknown_key(what: str) -> ApiError:
    """401, with the header that says what is wanted."""
    return ApiError(
        f"{what}; send a valid one as 'Authorization: Bearer KEY'",
        status=401,
        code="invalid_api_key",
        headers={"WWW-Authenticate": 'Bearer realm="rockledge"'},
    )


def _too_many(message: str, seconds: float) -> ApiError:
    wait = max(math.ceil(seconds), 1)
    return ApiError(
        f"{message}; try again in {wait} s",
        status=429,
        code="rate_limit_exceeded",
        headers={"Retry-After": str(wait)},
    )


def _left(what: str, limit: int | None, used: Window) -> dict[str, str]:
    if limit is None:
        return {}
    return {
        f"X-RateLimit-Limit-{what}": str(limit),
        f"X-RateLimit-Remaining-{what}": str(max(limit - used.total, 0)),
        f"X-RateLimit-Reset-{what}": f"{math.ceil(used.seconds_until(0))}s",
    }
