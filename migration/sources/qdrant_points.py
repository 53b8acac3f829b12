"""
Points as qdrant-client's local mode pickles them, read without running anything that a pickle asks for.

A pickle is a program. Here it may make the data holders below, dates, UUIDs, decimals and numpy's numbers, and nothing
else; qdrant-client's own classes are replaced by a holder, so that the package is not needed and its versions do not matter.
"""

from __future__ import annotations

import base64
import collections
import datetime
import decimal
import io
import json
import pickle
import re
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from migration.source import Loss


class Model:
    """
    A model of qdrant-client: its fields and nothing more.

    :param fields: By name: of a point `id`, `vector`, `payload`; of a sparse vector `indices`, `values`.
    """

    __slots__ = ("fields",)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.fields: dict[str, Any] = state["__dict__"]  # pydantic 1 and 2 alike


_CLIENT_MODULE = "qdrant_client.http.models.models"
_ALLOWED: dict[tuple[str, str], Any] = {
    **{("datetime", kind.__name__): kind for kind in (datetime.date, datetime.datetime, datetime.time)},
    ("datetime", "timedelta"): datetime.timedelta,
    ("datetime", "timezone"): datetime.timezone,
    ("uuid", "UUID"): uuid.UUID,
    ("decimal", "Decimal"): decimal.Decimal,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # numpy 1 and 2 name the module differently.
    **{
        (module, name): getattr(np._core.multiarray, name)  # type: ignore[attr-defined]
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("_reconstruct", "scalar")
    },
}

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == _CLIENT_MODULE:
            return Model
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not data of Qdrant's") from None


def read_pickle(content: bytes) -> Any:
    """
    What a pickle holds.

    :raises ValueError: If it is damaged, or asks for anything beyond data; nothing of it has been run.
    """
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except Exception as exc:  # a damaged pickle can raise anything
        raise ValueError(f"the pickle is not read: {exc or type(exc).__name__}") from exc


def point_id(value: Any) -> str:
    """
    A point's id as text: an integer in digits, a UUID in lower case with hyphens, however it was spelled.

    The two cannot meet, so the kind stays visible.

    :raises ValueError: If it is neither.
    """
    if type(value) is int:
        return str(value)
    if type(value) is str and _CANONICAL.fullmatch(value):
        return value
    if isinstance(value, str | uuid.UUID):
        return str(uuid.UUID(str(value)))
    raise ValueError(f"{value!r} is no id of a point")


def id_of_key(key: str) -> str:
    """The id that a row's key stands for; the key itself if it cannot be read."""
    try:
        return point_id(read_pickle(base64.b64decode(key)))
    except ValueError:
        return key


def json_payload(payload: Mapping[Any, Any]) -> tuple[dict[str, Any], tuple[Loss, ...]]:
    """
    A payload as Qdrant's API gives it: dates, UUIDs and decimals as text, keys as text, tuples as lists.

    Up to 1.8 the client stored what it was given, also what it could never load again.

    :returns: The payload, and what JSON has no form for: its text stands in the payload.
    """
    plain: dict[str, Any] = {}
    losses = []
    for key, value in payload.items():
        name = _json_key(key)
        if name in plain:
            losses.append(Loss("unsupported_value", f"meta.{name}", {"key": repr(key), "value": value}))
            continue
        try:
            plain[name] = _json(value)
        except ValueError:
            plain[name] = str(value)
            losses.append(Loss("unsupported_value", f"meta.{name}", value))
    return plain, tuple(losses)


_PLAIN = (str, int, float, bool, type(None))


def _json(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list or kind is tuple:
        return [_json(item) for item in value]
    if isinstance(value, dict):
        plain = {_json_key(key): _json(item) for key, item in value.items()}
        if len(plain) < len(value):
            raise ValueError("keys that are equal as text")
        return plain
    if isinstance(value, set | frozenset):
        return sorted((_json(item) for item in value), key=repr)  # a set's own order differs from run to run
    if isinstance(value, np.ndarray | np.generic):
        return _json(value.tolist())
    return _text(value)


def _text(value: Any) -> str:
    """As the client writes what is no JSON, by pydantic."""
    if isinstance(value, datetime.datetime | datetime.time):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, uuid.UUID | decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.decode()
    raise ValueError(f"JSON has no form for {type(value).__name__}")


def _json_key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(key)
    return str(_json(key))
