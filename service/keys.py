"""API keys: who may ask, for which tenant, and how much.

The file holds digests, never keys. A key is 32 random bytes, so a plain SHA-256 of it is as good as
any slow hash: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

_log = structlog.get_logger(__name__)

KeyRole = Literal["score", "admin"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

_BEGINNING = "pgrm_"
_TELL_EVERY_S = 60


class KeysInvalid(Exception):
    """The file of keys cannot be used; the message says why."""


class ApiKey(BaseModel):
    """One key, as the file has it.

    Attributes:
        name: in logs, and in the quota's count.
        tenant: whose cache, rubrics and jobs it reaches; several keys may share one.
        role: ``score`` judges; ``admin`` may also read metrics and act for other tenants.
        sha256: of the key.
        per_minute: judgements asked for, over all gateways; None: no bound.
        at_once: requests in one gateway; None: no bound.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    tenant: Name
    role: KeyRole = "score"
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    per_minute: Annotated[int, Field(ge=1)] | None = None
    at_once: Annotated[int, Field(ge=1)] | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: Annotated[list[ApiKey], Field(min_length=1)]


class Keyring:
    """The keys in a file, read again when it changes: a key that is taken out is out at once.

    Raises:
        KeysInvalid: there is no such file, or it is not one of keys.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._changed_ns = _changed(file)
        self._keys = read_keys(file)
        self._issued: list[ApiKey] = []
        self._tell_after = 0.0

    def issue(self, name: str, tenant: str) -> str:
        """A new key whose role is admin, known to this process alone and as long as it runs."""
        secret = _fresh()
        key = ApiKey(name=name, tenant=tenant, role="admin", sha256=digest_of(secret))
        self._issued.append(key)
        return secret

    def holder(self, presented: str) -> ApiKey | None:
        """Whose key this is. Every key is compared, each in constant time."""
        self._refresh()
        digest = digest_of(presented)
        found = None
        for key in (*self._keys, *self._issued):
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _refresh(self) -> None:
        """A file that is gone or spoilt leaves the keys as they were, and is told of.

        It is read again by each request until it is good: what was wrong with it may not have been
        in it, and what makes it good may not change its time.
        """
        try:
            changed_ns = _changed(self._file)
            if changed_ns != self._changed_ns:
                self._keys = read_keys(self._file)
                self._changed_ns = changed_ns
                self._tell_after = 0.0
                _log.info("keys read again", keys=len(self._keys))
        except KeysInvalid as error:
            if time.monotonic() >= self._tell_after:
                self._tell_after = time.monotonic() + _TELL_EVERY_S
                _log.error("keys not read again", reason=str(error))


def read_keys(file: Path) -> list[ApiKey]:
    """The keys in a file.

    Raises:
        KeysInvalid: it is none; the message repeats nothing of what is in it.
    """
    try:
        keys = _File.model_validate(tomllib.loads(file.read_text())).keys
    except OSError as error:
        raise KeysInvalid(f"the file of API keys {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise KeysInvalid(f"the file of API keys {file} is no TOML") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise KeysInvalid(f"the file of API keys {file}: {where}: {first['msg']}") from None
    if len({key.name for key in keys}) < len(keys):
        raise KeysInvalid(f"the file of API keys {file} has a name twice")
    return keys


def new_key(
    file: Path, name: str, tenant: str | None, role: KeyRole, per_minute: int | None
) -> str:
    """Makes a key, adds its digest to the file and returns the key, which is nowhere else.

    Raises:
        KeysInvalid: the name is taken or is none, or the file is not to be written; it is left as
            it was.
    """
    secret = _fresh()
    try:
        key = ApiKey(
            name=name,
            tenant=tenant or name,
            role=role,
            sha256=digest_of(secret),
            per_minute=per_minute,
        )
    except ValidationError as error:
        raise KeysInvalid(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from None
    if file.exists() and name in {kept.name for kept in read_keys(file)}:
        raise KeysInvalid(f"{file} has a key named {name} already")
    fields = key.model_dump(exclude_none=True)
    lines = [f"{field} = {_toml(value)}" for field, value in fields.items()]
    try:
        file.touch(mode=0o600)
        begun = file.read_bytes()
        with file.open("a") as out:
            gap = "" if not begun or begun.endswith(b"\n") else "\n"
            out.write(gap + "\n".join(["[[keys]]", *lines]) + "\n\n")
    except OSError as error:
        raise KeysInvalid(f"the file of API keys {file}: {error.strerror}") from None
    return secret


def _fresh() -> str:
    return _BEGINNING + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """What the file has of a key."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def _toml(value: str | int) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError as error:
        raise KeysInvalid(f"the file of API keys {file}: {error.strerror}") from None
