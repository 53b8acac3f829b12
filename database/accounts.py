"""
Users, their passwords and their API keys, each of one tenant.

A key is `synapse_<tenant>.<secret>`; of the secret only its SHA-256 is stored, and its first characters. A secret of 256
random bits needs no slow hash; passwords, which people think up, are stored as Argon2 hashes.

    accounts = Accounts(database)
    accounts.create_user("default", "ann", password=password)
    text, key = accounts.create_key("default", "ann", label="laptop")
    identity = await accounts.authenticate_key_async(text)
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from database.connection import Database, Row
from database.conversation_queries import storable
from database.errors import ConfigurationError, InvalidInputError, NotFoundError, UnknownTenantError
from database.reading import Reader
from database.sql import statements
from database.tenancy import DEFAULT_TENANT, checked_tenant, transaction_settings

if TYPE_CHECKING:
    from argon2 import PasswordHasher
    from psycopg import Connection

PREFIX_LENGTH = 6
"""Characters of a secret that are kept, so that people can tell keys apart; the other 37 have 222 bits."""

LONGEST_NAME = 200
SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1000

_SQL = statements(Path(__file__).with_suffix(".sql"))
_KEY = re.compile(r"synapse_([a-z][a-z0-9_]{0,39})\.([A-Za-z0-9_-]{43})", re.ASCII)
_NAME = re.compile(rf"[^@\s\x00-\x1f\x7f](?:[^@\x00-\x1f\x7f]{{0,{LONGEST_NAME - 2}}}[^@\s\x00-\x1f\x7f])?")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """
    Who asks.

    :param tenant: Whose documents and conversations.
    :param user_id: The user's id, within the tenant.
    :param user_name: The user's name.
    :param key_id: The key that was shown; `None` without one.
    :param daily_tokens: Tokens of the language model that the key may use per day; `None` means the settings' number.
    :param requests_per_minute: Requests that it may make per minute; likewise.
    """

    tenant: str
    user_id: UUID
    user_name: str
    key_id: UUID | None = None
    daily_tokens: int | None = None
    requests_per_minute: int | None = None


@dataclass(frozen=True, kw_only=True)
class User:
    """A user; without a password there is no login to the page."""

    id: UUID
    name: str
    has_password: bool
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What can be known of a key without having it; `prefix` is how its secret begins."""

    id: UUID
    user_name: str
    label: str
    prefix: str
    daily_tokens: int | None
    requests_per_minute: int | None
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class Accounts:
    """
    The users and keys of all tenants, one tenant at a time. Safe to share between threads and event loops.

    :param database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def create_user(self, tenant: str, name: str, *, password: str | None = None) -> Identity:
        """
        Make a user.

        :param name: 1 to 200 characters, without @, and without space around it.
        :param password: For the page; `None` means that there is no login.
        :raises InvalidInputError: If the name is taken or cannot be used, or the password is too short.
        """
        parameters = {"name": _checked_name(name), "password_hash": _hashed(password)}
        if not (rows := self._write(tenant, "insert_user", parameters)):
            raise InvalidInputError(f"A new name was expected, but there is a user {name!r} in the tenant {tenant}.")
        return Identity(tenant=tenant, user_id=rows[0]["id"], user_name=name)

    def ensure_user(self, tenant: str, name: str) -> Identity:
        """The user of this name, made if it is not there."""
        rows = self._write(tenant, "insert_user", {"name": _checked_name(name), "password_hash": None})
        return Identity(tenant=tenant, user_id=rows[0]["id"], user_name=name) if rows else self.identity(tenant, name)

    def identity(self, tenant: str, name: str) -> Identity:
        """
        A user as whoever asks.

        :raises NotFoundError: If there is none of this name.
        """
        return Identity(tenant=tenant, user_id=self._user(tenant, name).id, user_name=name)

    def set_password(self, tenant: str, name: str, password: str | None) -> None:
        """
        Give a user another password; `None` takes it away, and with it the login.

        :raises NotFoundError: If there is no such user.
        :raises InvalidInputError: If the password is too short.
        """
        if not self._write(tenant, "set_password", {"name": name, "password_hash": _hashed(password)}):
            raise _no_user(tenant, name)

    def list_users(self, tenant: str) -> list[User]:
        """All users of a tenant, by name."""
        return [User(**row) for row in self._read(tenant, "list_users")]

    def delete_user(self, tenant: str, name: str) -> dict[str, int]:
        """
        Delete a user with all that is the user's: conversations, messages, feedback, usage, keys.

        :returns: How many rows went, by kind.
        :raises NotFoundError: If there is no such user.
        """
        with self._connection(tenant) as connection:
            locked = connection.execute(_SQL["lock_user"], {"name": name}).fetchone()
            if locked is None:
                raise _no_user(tenant, name)
            counts = connection.execute(_SQL["count_user"], {"user_id": locked["id"]}).fetchone()
            connection.execute(_SQL["delete_user"], {"user_id": locked["id"]})
        return dict(counts or {})

    def holdings(self, tenant: str, name: str) -> dict[str, int]:
        """
        What `delete_user` would delete: how many rows, by kind.

        :raises NotFoundError: If there is no such user.
        """
        return self._read(tenant, "count_user", {"user_id": self._user(tenant, name).id})[0]

    def create_key(
        self,
        tenant: str,
        user_name: str,
        *,
        label: str,
        daily_tokens: int | None = None,
        requests_per_minute: int | None = None,
    ) -> tuple[str, ApiKey]:
        """
        Make a key.

        :param user_name: Whose key; the user must be there.
        :param label: What it is for.
        :param daily_tokens: Tokens of the language model that it may use per day; `None` means the settings' number.
        :param requests_per_minute: Requests that it may make per minute; likewise.
        :returns: The key's text, which nobody can be shown again, and what is known of it.
        :raises NotFoundError: If there is no such user.
        """
        secret = secrets.token_urlsafe(32)
        parameters = {
            "user_name": user_name,
            "label": _checked_label(label),
            "secret_hash": _digest(secret),
            "prefix": secret[:PREFIX_LENGTH],
            "daily_tokens": daily_tokens,
            "requests_per_minute": requests_per_minute,
        }
        if not (rows := self._write(tenant, "insert_key", parameters)):
            raise _no_user(tenant, user_name)
        return f"synapse_{tenant}.{secret}", self._keys(tenant, rows[0]["id"])[0]

    def list_keys(self, tenant: str) -> list[ApiKey]:
        """All keys of a tenant, oldest first, also those that were revoked."""
        return self._keys(tenant, None)

    def revoke_key(self, tenant: str, key_id: UUID) -> ApiKey:
        """
        Let a key be accepted no longer, from now on.

        :raises NotFoundError: If the tenant has no such key.
        """
        if not self._write(tenant, "revoke_key", {"id": key_id}):
            raise NotFoundError(
                f"A key {key_id} was expected in the tenant {tenant}, but there is none.",
                hint="Run `python synapse.py keys list`.",
            )
        return self._keys(tenant, key_id)[0]

    async def authenticate_key_async(self, text: str) -> Identity | None:
        """
        Whose key this is; one round trip to the database, so that a key that is revoked stops at once.

        :returns: `None` for what is no key, is not known or was revoked.
        :raises DatabaseUnavailableError: If nobody can tell.
        """
        if (match := _KEY.fullmatch(text)) is None:
            return None
        tenant, secret = match.groups()
        digest = _digest(secret)
        rows = await self._read_if_tenant(tenant, "authenticate_key", {"secret_hash": digest})
        if not rows or not hmac.compare_digest(rows[0].pop("secret_hash"), digest):
            return None
        return Identity(tenant=tenant, **rows[0])

    async def authenticate_password_async(self, login: str, password: str) -> Identity | None:
        """
        Who logs in: `name@tenant`, or `name` of the tenant default.

        It takes as long for users that are not there, so that nobody learns who is.

        :returns: `None` if there is no such user, there is no password, or it is another.
        :raises DatabaseUnavailableError: If nobody can tell.
        """
        name, at, tenant = login.partition("@")
        tenant = tenant if at else DEFAULT_TENANT
        rows: list[dict[str, Any]] = []
        if _NAME.fullmatch(name) and _can_be_sent(name):
            rows = await self._read_if_tenant(tenant, "password_of", {"name": name})
        known = rows[0] if rows else {}
        right = await asyncio.to_thread(_verified, known.get("password_hash"), password)
        if not right:
            return None
        return Identity(tenant=tenant, user_id=known["id"], user_name=known["name"])

    def _user(self, tenant: str, name: str) -> User:
        rows = self._read(tenant, "find_user", {"name": name})
        if not rows:
            raise _no_user(tenant, name)
        return User(**rows[0])

    def _keys(self, tenant: str, key_id: UUID | None) -> list[ApiKey]:
        return [ApiKey(**row) for row in self._read(tenant, "list_keys", {"id": key_id})]

    # Here the owner of the schema takes the tenant's role, too: rows are made, and seen, in a role that has a tenant.

    def _read(self, tenant: str, name: str, parameters: dict[str, Any] | None = None) -> list[Row]:
        database = self.database.without_tenant()
        return database.read(_SQL[name], parameters, settings=transaction_settings(tenant))

    def _write(self, tenant: str, name: str, parameters: dict[str, Any]) -> list[Row]:
        with self._connection(tenant) as connection:
            return connection.execute(_SQL[name], parameters).fetchall()

    @contextmanager
    def _connection(self, tenant: str) -> Iterator[Connection[Row]]:
        with self.database.without_tenant().connection() as connection:
            connection.execute(_SQL["take_role"], transaction_settings(tenant))
            yield connection

    async def _read_if_tenant(self, tenant: str, name: str, parameters: dict[str, Any]) -> list[Row]:
        """Rows, from the standby while the primary is away; none also where there is no such tenant."""
        try:
            settings = transaction_settings(checked_tenant(tenant))
            database = self.database.without_tenant()
            if database.replica is None:
                return await database.read_async(_SQL[name], parameters, settings=settings)
            known = _SQL.get(f"{name}_on_standby", _SQL[name])
            return await Reader(database, database.replica).read_current_async(
                _SQL[name], parameters, on_standby=known, settings=settings
            )
        except (InvalidInputError, UnknownTenantError):
            return []


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _no_user(tenant: str, name: str) -> NotFoundError:
    return NotFoundError(
        f"A user {name!r} was expected in the tenant {tenant}, but there is none.",
        hint="Run `python synapse.py users list`.",
    )


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or not _can_be_sent(name):
        raise InvalidInputError(
            f"A user's name must have 1 to {LONGEST_NAME} characters, no @ and no space around them, but is {name!r}."
        )
    return name


def _can_be_sent(name: str) -> bool:
    return not re.search(r"[\ud800-\udfff]", name)


def _checked_label(label: str) -> str:
    if len(label) > LONGEST_NAME:
        raise InvalidInputError(f"A label must have at most {LONGEST_NAME} characters, but has {len(label)}.")
    return storable(label, what="A label")


def _hashed(password: str | None) -> str | None:
    if password is None:
        return None
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InvalidInputError(
            f"A password must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters, but has {len(password)}."
        )
    return _hasher().hash(storable(password, what="A password"))


def _verified(stored: str | None, password: str) -> bool:
    """Whether it is the password; without one that is stored, the work is the same and the answer no."""
    hasher = _hasher()
    from argon2.exceptions import Argon2Error, InvalidHashError

    if len(password) > LONGEST_PASSWORD:
        return False
    try:
        hasher.verify(stored or _nobodys_hash(), password.encode(errors="replace"))
    except (Argon2Error, InvalidHashError):
        return False
    return stored is not None


@cache
def _nobodys_hash() -> str:
    return _hasher().hash(secrets.token_urlsafe(32))


@cache
def _hasher() -> PasswordHasher:
    try:
        from argon2 import PasswordHasher
    except ImportError as exc:
        raise ConfigurationError(
            "argon2-cffi was expected, as passwords are stored as its hashes, but it is not installed.",
            hint="Run `pip install -r requirements-serve.txt`.",
        ) from exc
    return PasswordHasher()
