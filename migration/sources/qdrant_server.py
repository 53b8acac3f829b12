"""
A Qdrant server, asked by qdrant-client over REST.

The list of ids is taken once, at the beginning, and points are fetched by it: what others write meanwhile neither doubles nor
hides a record, and a point that is gone is an error. Answers are taken as the JSON that they are, without the client's
models, so that a server of another version, or a vector with a component that JSON has no form for, can be read.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from database.errors import ConfigurationError, InvalidInputError, SynapseError
from migration.source import Part, Position, Record
from migration.sources.qdrant import SAMPLE, Collection, describe

REQUIREMENT = "qdrant-client==1.20.0"

_IDS_AT_ONCE = 10_000
_POINTS_AT_ONCE = 500


class PointIds(Sequence[int | str]):
    """
    A frozen list of ids, 8 bytes an integer and 16 a UUID, in Qdrant's order: integers before UUIDs.

    :param ids: In any order, as Qdrant's API gives them.
    """

    def __init__(self, ids: Iterable[int | str]) -> None:
        numbers, uuids = array("Q"), bytearray()
        for each in ids:
            if isinstance(each, int):
                numbers.append(each)
            else:
                uuids += UUID(each).bytes
        self._numbers, self._uuids = numbers, bytes(uuids)

    def __len__(self) -> int:
        return len(self._numbers) + len(self._uuids) // 16

    @overload
    def __getitem__(self, index: int) -> int | str: ...
    @overload
    def __getitem__(self, index: slice) -> list[int | str]: ...
    def __getitem__(self, index: int | slice) -> int | str | list[int | str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index < len(self._numbers):
            return self._numbers[index]
        start = 16 * (index - len(self._numbers))
        return str(UUID(bytes=self._uuids[start : start + 16]))

    def behind(self, last: int | str) -> int:
        """Index of the first id behind one that is, or was, in the list."""
        return bisect_right(self, _order(last), key=_order)


def _order(point: int | str) -> tuple[int, int | str]:
    return (0, point) if isinstance(point, int) else (1, point)


class QdrantServer:
    """
    A Qdrant server as a source.

    Vectors are as the server stores them: those of cosine collections divided by their length, all in the collection's
    datatype, which float32 holds exactly. A component that is not a finite number arrives as NaN. A position is a point's id.

    :param url: As in `http://localhost:6333`; the port is 6333 where none is given.
    :param api_key: Sent with every request, and never shown.
    :param vector: Which vector of a collection that has several.
    :param content_field: Key of the payload that is the text. No layout is looked for then.
    :param timeout: Of a request, in seconds.
    :raises ConfigurationError: If qdrant-client is not installed, or the key cannot be sent.
    :raises InvalidInputError: If the address is none, or the server refuses the key.
    :raises SynapseError: If it does not answer.
    """

    kind = "qdrant server"

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        vector: str | None = None,
        content_field: str | None = None,
        timeout: int = 60,
    ) -> None:
        self._vector, self._content_field = vector, content_field
        self._has_key = api_key is not None
        self.location = _without_secrets(url)
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            # Otherwise the error would come from within, and quote it.
            raise ConfigurationError("The API key has characters that no HTTP header can hold.", hint="Copy it anew.")
        self._client = _client(url, api_key, timeout, self.location)
        self._ids: dict[str, PointIds] = {}
        self._collections: dict[str, Collection] = {}
        try:
            self.version: str | None = self._ask("GET", "/").get("version")
            self._names()  # every server tells its version, but not its collections
        except BaseException:
            self.close()
            raise

    def parts(self) -> list[Part]:
        """Every collection that the key may see; their ids are listed once."""
        return [self._collection(name).part for name in self._names()]

    def records(self, part: Part, *, after: Position | None = None) -> Iterator[Record]:
        """The points by id, integers before UUIDs."""
        collection = self._collection(part.id)
        if collection.part.refusal is not None:
            raise InvalidInputError(f"{part.name}: {collection.part.refusal}")
        ids = self._ids[part.id]
        start = 0
        if after is not None:
            assert isinstance(after, int | str)
            start = ids.behind(after)
        for first in range(start, len(ids), _POINTS_AT_ONCE):
            wanted = ids[first : first + _POINTS_AT_ONCE]
            for point, found in zip(wanted, self._points(part.id, wanted, vectors=True), strict=True):
                yield collection.record(str(point), found.get("payload") or {}, found.get("vector"), position=point)

    def fingerprint(self) -> str:
        """
        Of the collections' settings and all ids, listed anew.

        It does not tell that a point has other contents than before; verification, which reads them again, does.
        """
        digest = hashlib.sha256()
        for name in self._names():
            digest.update(json.dumps([name, self._settings(name)], sort_keys=True).encode())
            for point in self._list_ids(name):
                digest.update(f"\n{point}".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _names(self) -> list[str]:
        return sorted(each["name"] for each in self._result("GET", "/collections")["collections"])

    def _collection(self, name: str) -> Collection:
        if name not in self._collections:
            self._collections[name] = self._describe(name)
        return self._collections[name]

    def _describe(self, name: str) -> Collection:
        settings = self._settings(name)
        ids = self._ids[name] = PointIds(self._list_ids(name))
        count = self._result("POST", "/collections/{name}/points/count", {"exact": True}, name=name)["count"]
        if count != len(ids):
            raise _changed(f"{name} lists {len(ids):,} points and counts {count:,}.")
        first = ids[:SAMPLE]
        sample = [
            (str(point), found.get("payload") or {})
            for point, found in zip(first, self._points(name, first, vectors=False), strict=True)
        ]
        aliases = self._result("GET", "/collections/{name}/aliases", name=name)["aliases"]
        facts = {"aliases": sorted(each["alias_name"] for each in aliases)} if aliases else {}
        return describe(
            name,
            settings,
            count=count,
            sample=sample,
            wanted=self._vector,
            content_field=self._content_field,
            facts=facts,
            normalised=True,
        )

    def _settings(self, name: str) -> Mapping[str, Any]:
        params: Mapping[str, Any] = self._result("GET", "/collections/{name}", name=name)["config"]["params"]
        return {key: params.get(key) for key in ("vectors", "sparse_vectors")}

    def _list_ids(self, name: str) -> Iterator[int | str]:
        offset: int | str | None = None
        while True:
            page = {"limit": _IDS_AT_ONCE, "offset": offset, "with_payload": False, "with_vector": False}
            result = self._result("POST", "/collections/{name}/points/scroll", page, name=name)
            yield from (each["id"] for each in result["points"])
            offset = result.get("next_page_offset")
            if offset is None:
                return

    def _points(self, name: str, ids: Sequence[int | str], *, vectors: bool) -> list[dict[str, Any]]:
        """The points in the order of their ids; a server gives them in its own, and passes over those it has not."""
        if not ids:
            return []
        query = {"ids": list(ids), "with_payload": True, "with_vector": vectors}
        found = {each["id"]: each for each in self._result("POST", "/collections/{name}/points", query, name=name)}
        if gone := [each for each in ids if each not in found]:
            raise _changed(f"{name} no longer has {len(gone):,} of its points, the first is {gone[0]}.")
        return [found[each] for each in ids]

    def _result(self, method: str, path: str, body: Mapping[str, Any] | None = None, **names: str) -> Any:
        answer = self._ask(method, path, body, **names)
        if "result" not in answer:
            raise self._stranger(answer)
        return answer["result"]

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, **names: str) -> dict[str, Any]:
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            answer = self._client.http.client.request(
                type_=Any,  # type: ignore[arg-type]
                method=method,
                url=path,
                path_params=names,
                **({"json": body} if body is not None else {}),
            )
        except UnexpectedResponse as exc:
            raise self._refused(exc.status_code, exc.content, names.get("name")) from exc
        except ResponseHandlingException as exc:
            raise SynapseError(
                f"The Qdrant server at {self.location} does not answer: {str(exc.source) or type(exc.source).__name__}.",
                hint="See that it runs and can be reached; a new run goes on where this one stopped.",
            ) from exc
        except ResourceExhaustedResponse as exc:
            raise SynapseError(f"The Qdrant server at {self.location} limits the rate of requests: {exc}") from exc
        except ValueError as exc:
            raise self._stranger(str(exc)) from exc
        if not isinstance(answer, dict):
            raise self._stranger(answer)
        return answer

    def _stranger(self, answer: Any) -> SynapseError:
        return InvalidInputError(
            f"{self.location} answers, but not as a Qdrant server does: {str(answer)[:100]}.",
            hint="Give the address of its REST interface, by default port 6333.",
        )

    def _refused(self, status: int | None, content: bytes, name: str | None) -> SynapseError:
        if status in (401, 403):
            found = "refuses the API key" if self._has_key else "asks for an API key"
            return InvalidInputError(
                f"The Qdrant server at {self.location} {found} (HTTP {status}).",
                hint="Give one that may read every collection that is to be migrated.",
            )
        if status == 404 and name is not None:
            return InvalidInputError(f"The Qdrant server at {self.location} has no collection {name!r}.")
        text = content.decode(errors="replace")[:200]
        return SynapseError(f"The Qdrant server at {self.location} answers with HTTP {status}: {text}")


def _changed(found: str) -> SynapseError:
    return SynapseError(found, hint="Something is writing to it: stop that, and migrate again.")


def _client(url: str, api_key: str | None, timeout: int, shown: str) -> Any:
    try:
        from qdrant_client import QdrantClient
    except ImportError as exc:
        raise ConfigurationError(
            "Reading a Qdrant server needs qdrant-client, which is not installed.", hint=f"pip install {REQUIREMENT}"
        ) from exc
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a key is sent over plain HTTP: the user's choice
            return QdrantClient(url=url, api_key=api_key, timeout=timeout, check_compatibility=False)
    except Exception as exc:  # the client has no error of its own for it
        raise InvalidInputError(f"{shown} is no address of a Qdrant server.") from exc


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
