"""A connection to a Chroma server, through chromadb's client: what it says, and its failures as errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from database.errors import ConfigurationError, InvalidInputError, SynapseError

if TYPE_CHECKING:
    from chromadb.api import AdminAPI, ClientAPI
    from chromadb.api.models.Collection import Collection

REQUIREMENT = "chromadb-client==1.5.9"

DEFAULT_TENANT, DEFAULT_DATABASE = "default_tenant", "default_database"

_PORTS = {"http": 8000, "https": 443}
_COLLECTIONS_AT_ONCE = 100


class ServerRefusal(SynapseError):
    """The server answers, and says that it cannot do what it was asked."""


class Connection:
    """
    A Chroma server, for reading; every method raises `SynapseError` if it fails.

    :param url: As in `http://localhost:8000`; without a port 8000, or 443 for https.
    :param token: Sent in both headers that Chroma's servers look for, `Authorization: Bearer` and `X-Chroma-Token`.
    :raises ConfigurationError: If chromadb's client is not installed, or the token cannot be sent.
    :raises InvalidInputError: If the address is none.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self.location = _address(url)
        if token is not None and not (token and token.isascii() and token.isprintable()):
            # Otherwise the error would come from within, and quote it.
            raise ConfigurationError("The token has characters that no HTTP header can hold.", hint="Copy it anew.")
        self._headers = {"Authorization": f"Bearer {token}", "X-Chroma-Token": token} if token else {}
        self._clients: dict[tuple[str, str], ClientAPI] = {}
        self._admin: AdminAPI | None = None

    def version(self, tenant: str, database: str) -> str:
        """What the server says of itself: its release up to 0.6, and `1.0.0` in every later one."""
        client = self._client(tenant, database)
        with self._asking():
            return client.get_version()

    def databases(self, tenant: str) -> list[str] | None:
        """Names of the tenant's databases; `None` where the server cannot list them, before 0.6, or will not."""
        admin = self._admin_client()
        try:
            with self._asking():
                return sorted(
                    each["name"] for each in _paged(lambda **page: admin.list_databases(tenant=tenant, **page))
                )
        except ServerRefusal:
            return None

    def collections(self, tenant: str, database: str) -> list[Collection]:
        """
        The collections of a database.

        :raises InvalidInputError: If tenant or database is not there, or the token is refused.
        """
        client = self._client(tenant, database)
        with self._asking():
            return sorted(_paged(client.list_collections), key=lambda each: (each.name, str(each.id)))

    def count(self, collection: Collection) -> int:
        """How many records it says to have."""
        with self._asking():
            return collection.count()

    def ids(self, collection: Collection, *, at_once: int) -> Iterator[list[str]]:
        """Its ids, in pages; by offset, so that they shift where others write meanwhile."""
        offset = 0
        while True:
            with self._asking():
                page = collection.get(include=[], limit=at_once, offset=offset)["ids"]
            if not page:
                return
            yield page
            offset += len(page)

    def get(self, collection: Collection, ids: Sequence[str], *, vectors: bool = True) -> dict[str, Any]:
        """
        Records by id, in the server's order.

        :raises ValueError: If their vectors make no array, as some are missing.
        :raises ServerRefusal: If the server cannot read one of them.
        """
        include = ["documents", "metadatas", "uris", *(["embeddings"] if vectors else [])]
        with self._asking(passing=ValueError):
            return dict(collection.get(ids=list(ids), include=include))  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()  # type: ignore[attr-defined]
        self._clients.clear()

    def _client(self, tenant: str, database: str) -> ClientAPI:
        if (tenant, database) not in self._clients:
            chromadb = _chromadb()
            with self._asking(f"tenant {tenant!r} with a database {database!r}"):
                self._clients[tenant, database] = chromadb.HttpClient(
                    self.location,
                    headers=dict(self._headers),
                    settings=self._settings(),
                    tenant=tenant,
                    database=database,
                )
        return self._clients[tenant, database]

    def _admin_client(self) -> AdminAPI:
        if self._admin is None:
            settings = self._settings()
            settings.chroma_api_impl = "chromadb.api.fastapi.FastAPI"
            settings.chroma_server_host = self.location
            settings.chroma_server_http_port = urlsplit(self.location).port
            settings.chroma_server_headers = dict(self._headers)
            with self._asking():
                self._admin = _chromadb().AdminClient(settings)
        return self._admin

    def _settings(self) -> Any:
        # Neither this program's .env nor variables for a server beside it are meant for this client.
        alone: dict[str, Any] = dict.fromkeys(
            ("_env_file", "chroma_server_host", "chroma_server_http_port", "chroma_client_auth_provider")
        )
        return _chromadb().config.Settings(anonymized_telemetry=False, **alone)

    @contextmanager
    def _asking(self, what: str | None = None, *, passing: type[Exception] | None = None) -> Iterator[None]:
        """
        Whatever the client raises, as an error of ours.

        :param what: What is looked for, where nothing else can be missing.
        :param passing: An exception that, without an answer of the server as its cause, is let through.
        """
        try:
            yield
        except SynapseError:
            raise
        except Exception as exc:  # the client raises bare exceptions
            status, refused = _status(exc)
            if passing is not None and isinstance(exc, passing) and status is None and not _is_transport(exc):
                raise
            raise self._error(exc, status, refused, what) from exc

    def _error(self, exc: Exception, status: int | None, text: str, what: str | None) -> SynapseError:
        server = f"The Chroma server at {self.location}"
        if _is_transport(exc):
            return SynapseError(
                f"{server} does not answer: {_innermost(exc) or type(exc).__name__}.",
                hint="See that it runs and can be reached; a new run goes on where this one stopped.",
            )
        if status in (401, 403):
            found = "refuses the token" if self._headers else "asks for a token"
            return InvalidInputError(
                f"{server} {found} (HTTP {status}).",
                hint="Set CHROMA_TOKEN to one that may read what is to be migrated; with --database, that one alone is asked for.",
            )
        if status is None or (what is not None and not self._is_current()):
            return self._stranger(text or (f"HTTP {status}" if status else str(exc)))
        if what is not None:
            return InvalidInputError(
                f"{server} has no {what}: {text.rstrip('.')}.", hint="Check --tenant and --database."
            )
        return ServerRefusal(f"{server} answers with HTTP {status}: {text}")

    def _stranger(self, said: str) -> SynapseError:
        version = self._said("/api/v1/version")
        if isinstance(version, str) and not self._is_current():
            return InvalidInputError(
                f"The Chroma server at {self.location} is of version {version}: expected 0.5.23 or newer.",
                hint="Stop it, and migrate its folder: every version's can be read.",
            )
        return InvalidInputError(
            f"{self.location} answers, but not as a Chroma server does: {said[:100]}.",
            hint="Give its address, by default port 8000.",
        )

    def _is_current(self) -> bool:
        """Whether it has the second version of Chroma's interface."""
        return isinstance(self._said("/api/v2/heartbeat"), dict)

    def _said(self, path: str) -> Any:
        import httpx

        try:
            answer = httpx.get(self.location + path, headers=self._headers)
            return answer.json() if answer.is_success else None
        except (httpx.HTTPError, ValueError):
            return None


def _address(url: str) -> str:
    """The address without what could be a secret, and with its port."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
        if not parts.hostname or parts.username is not None or parts.query:
            raise ValueError
    except (ValueError, KeyError):
        raise InvalidInputError(
            "The address of a Chroma server was expected, as in http://localhost:8000, without a user or a query.",
            hint="A token goes into CHROMA_TOKEN.",
        ) from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def _chromadb() -> Any:
    try:
        import chromadb
    except ImportError as exc:
        raise ConfigurationError(
            "Reading a Chroma server needs chromadb's client, which is not installed.",
            hint=f"pip install {REQUIREMENT}",
        ) from exc
    return chromadb


def _paged(ask: Callable[..., Sequence[Any]]) -> Iterator[Any]:
    offset = 0
    while page := ask(limit=_COLLECTIONS_AT_ONCE, offset=offset):
        yield from page
        offset += len(page)


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _status(exc: Exception) -> tuple[int | None, str]:
    """The HTTP status of the answer that made the client fail, and what the server said."""
    import httpx
    from chromadb.errors import ChromaError

    for each in _chain(exc):
        if isinstance(each, httpx.HTTPStatusError):
            return each.response.status_code, _message(each.response.text)
        if isinstance(each, ChromaError):
            return each.code(), str(each)[:300]
    return None, ""


def _message(text: str) -> str:
    try:
        said = json.loads(text)
        return str(said.get("message") or said.get("detail") or text)[:300]
    except (ValueError, AttributeError):
        return text[:300]


def _is_transport(exc: Exception) -> bool:
    import httpx

    return any(isinstance(each, httpx.TransportError) for each in _chain(exc))


def _innermost(exc: Exception) -> str:
    return [str(each) for each in _chain(exc)][-1]
