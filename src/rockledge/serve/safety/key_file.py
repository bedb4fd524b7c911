"""The file of API keys: names, salted hashes, and the limits of each; never a key itself.

A key is 256 random bits, so one round of SHA-256 keeps it as well as many would: there are no likely keys to
try. Its first part is its `id`, by which it is found; the id is not a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rockledge.errors import UsageError
from rockledge.regular_file import open_regular

PREFIX = "rk-"
ID_BYTES, SECRET_BYTES, SALT_BYTES = 4, 32, 16
MOST_BYTES = 8 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_KEY = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * ID_BYTES}}})-[A-Za-z0-9_-]{{20,200}}")


@dataclass(frozen=True)
class KeyLimits:
    """What one key may take; None for what only the server limits.

    `tokens_per_day`: of prompts and answers together. `concurrent`: requests at a time. `answer_tokens`: the
    longest answer. `priority`: higher goes before the requests of other keys.
    """

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrent: int | None = None
    answer_tokens: int | None = None
    priority: int = 0


LEAST = {"requests_per_minute": 1, "tokens_per_day": 1, "concurrent": 1, "answer_tokens": 1, "priority": -100}
MOST = {"priority": 100}


@dataclass(frozen=True)
class Key:
    """One line of the file. `digest` is `hashed(salt, key)`."""

    name: str
    id: str
    salt: bytes
    digest: bytes
    limits: KeyLimits = KeyLimits()


def hashed(salt: bytes, key: str) -> bytes:
    """HMAC-SHA-256 of a key with a salt."""
    return hmac.new(salt, key.encode(errors="surrogateescape"), hashlib.sha256).digest()


def id_of(key: str) -> str:
    """The part of a key by which it is found; empty for what does not look like one."""
    found = _KEY.fullmatch(key)
    return found[1] if found else ""


def read_keys(path: Path) -> list[Key]:
    """The keys of a file.

    Raises:
        UsageError: it cannot be read, every user may write it, or something in it is not understood.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise UsageError(f"every user may write {path}, and so give out keys; run: chmod o-w {path}")
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the file of keys cannot be read: {path}: {error.strerror or error}") from None
    try:
        value = json.loads(data) if len(data) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or value.keys() != {"keys"} or not isinstance(value["keys"], list):
        raise UsageError(
            f'{path} is not a file of keys, expected {{"keys": [...]}}; make it with: rockledge keys add'
        )
    keys = [_key(entry, f"{path}: key {number}") for number, entry in enumerate(value["keys"], 1)]
    for what in ("name", "id"):
        found = [getattr(key, what) for key in keys]
        twice = sorted({item for item in found if found.count(item) > 1})
        if twice:
            raise UsageError(f"{path}: two keys have the {what} {twice[0]!r}; remove one of them")
    return keys


def add_key(path: Path, name: str, limits: KeyLimits) -> str:
    """A new key, written into the file; it can be read nowhere else later. The file is made for its owner
    alone if it is missing.

    Raises:
        UsageError: the name is taken or not a name, or the file is wrong.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"the name {name[:80]!r}, expected letters, digits, '.', '_', '@' and '-', at most 64"
        )
    keys = read_keys(path) if path.exists() else []
    if any(key.name == name for key in keys):
        raise UsageError(f"{path} has a key {name!r} already; choose another name, or remove that first")
    taken = {key.id for key in keys}
    ids = iter(lambda: secrets.token_hex(ID_BYTES), "")
    id_ = next(found for found in ids if found not in taken)
    made, salt = f"{PREFIX}{id_}-{secrets.token_urlsafe(SECRET_BYTES)}", secrets.token_bytes(SALT_BYTES)
    _write(path, [*keys, Key(name, id_, salt, hashed(salt, made), limits)])
    return made


def remove_key(path: Path, name: str) -> None:
    """Takes a key out of the file.

    Raises:
        UsageError: there is none of that name, or the file is wrong.
    """
    keys = read_keys(path)
    if all(key.name != name for key in keys):
        raise UsageError(f"{path} has no key {name!r}, expected one of: {', '.join(k.name for k in keys)}")
    _write(path, [key for key in keys if key.name != name])


def _write(path: Path, keys: Sequence[Key]) -> None:
    """Replaces the file in one step, with the owner and mode it had."""
    text = json.dumps({"keys": [_entry(key) for key in keys]}, indent=1) + "\n"
    new = path.with_name(f".{path.name}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(
            f"{new} is there: another program changes the keys; if none does, remove it"
        ) from None
    try:
        with open(file, "w") as out:
            if path.exists():
                old = path.stat()
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.chown(file, old.st_uid, old.st_gid)
                os.chmod(file, stat.S_IMODE(old.st_mode))
            out.write(text)
            out.flush()
            os.fsync(file)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _entry(key: Key) -> dict[str, Any]:
    limits = {field.name: getattr(key.limits, field.name) for field in fields(KeyLimits)}
    given = {name: value for name, value in limits.items() if value not in (None, 0)}
    return {"name": key.name, "id": key.id, "salt": key.salt.hex(), "hash": key.digest.hex(), **given}


def _key(entry: object, where: str) -> Key:
    if not isinstance(entry, Mapping):
        raise UsageError(f"{where} is not an object")
    known = {"name", "id", "salt", "hash", *LEAST}
    if more := sorted(map(str, entry.keys() - known)):
        raise UsageError(f"{where}: {more[0]!r} is not known, expected one of {', '.join(sorted(known))}")
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{where}: its name is not one, expected letters, digits, '.', '_', '@' and '-'")
    where = f"{where} ({name})"
    numbers = {limit: _limit(entry[limit], limit, where) for limit in LEAST if entry.get(limit) is not None}
    return Key(
        name,
        _hex(entry.get("id"), ID_BYTES, f"{where}: its id").hex(),
        _hex(entry.get("salt"), SALT_BYTES, f"{where}: its salt"),
        _hex(entry.get("hash"), hashlib.sha256().digest_size, f"{where}: its hash"),
        KeyLimits(**numbers),
    )


def _hex(value: object, size: int, what: str) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", value):
        raise UsageError(
            f"{what} is not {2 * size} hexadecimal digits; make the key anew: rockledge keys add"
        )
    return bytes.fromhex(value)


def _limit(value: object, name: str, where: str) -> int:
    most = MOST.get(name, (1 << 53) - 1)
    if not isinstance(value, int) or isinstance(value, bool) or not LEAST[name] <= value <= most:
        raise UsageError(f"{where}: {name} is {value!r}, expected an integer from {LEAST[name]} to {most}")
    return value
