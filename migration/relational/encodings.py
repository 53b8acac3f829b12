"""
How values become PostgreSQL's, and which of these ways lose nothing.

An encoding fits a value if what it makes of it, as PostgreSQL will give it back, leads to the same value of the same kind:
this is computed, value by value, never assumed. Of those that fit all values of a column, the first in order is taken.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from functools import cache, partial
from typing import Any
from uuid import UUID

from migration.relational.tables import Column, Value

LONGEST_VARCHAR = 10_485_760
LARGEST_PRECISION = 1000

_EXACT = Context(prec=2 * LARGEST_PRECISION)
_INT64 = range(-(2**63), 2**63)
_INTEGER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)
_HEX = re.compile(r"\\x(?:[0-9a-f]{2})*")
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)([ T])(\d\d:\d\d)(?::(\d\d)(?:\.(\d{3}|\d{6}))?)?(Z|\+00:00)?", re.ASCII | re.DOTALL
)
_TIME = re.compile(r"\d\d:\d\d:\d\d(?:\.(\d{3}|\d{6}))?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_JULIAN_EPOCH = Fraction(4881175, 2)
"""The Julian day number of 1970-01-01 00:00."""

UNIX_TIMES = range(100_000_000, 4_102_444_800)
"""Numbers that are taken for seconds since 1970 in a column of times: from 1973 to 2099."""

JULIAN_DAYS = range(2_415_021, 2_488_070)
"""Numbers that are taken for Julian days there: from 1900 to 2099."""


class UnfitError(ValueError):
    """The encoding has no form for this value."""


@dataclass(frozen=True)
class Encoding:
    """
    A way to write values.

    :param name: What the receipt calls it.
    :param sql_type: PostgreSQL's type.
    :param kinds: Python types of the values that it may take.
    :param encode: Makes the value for PostgreSQL, or raises; `None` where values go as they are.
    :param decode: The way back.
    :param indexable: Whether PostgreSQL can compare what it makes.
    """

    name: str
    sql_type: str
    kinds: frozenset[type]
    encode: Callable[[Any], Any] | None = None
    decode: Callable[[Any], Value] | None = None
    indexable: bool = True

    @property
    def changes_nothing(self) -> bool:
        """Whether what it takes goes as it is."""
        return self.encode is None or self.decode is _itself

    def encoded(self, value: Value) -> Any:
        """
        The value as PostgreSQL gets it.

        :raises UnfitError: If the way back would not lead to it.
        """
        if value is None:
            return None
        if type(value) not in self.kinds:
            raise UnfitError
        if self.encode is None or self.decode is None:
            return value
        try:
            made = self.encode(value)
            back = self.decode(made)
        except (ValueError, OverflowError, InvalidOperation, RecursionError) as exc:
            raise UnfitError from exc
        if not same(back, value):
            raise UnfitError
        return made

    def fits(self, value: Value) -> bool:
        """Whether it keeps this value."""
        try:
            self.encoded(value)
        except UnfitError:
            return False
        return True


def same(one: Value, other: Value) -> bool:
    """Whether two values are equal and of the same kind; floats to the bit."""
    if type(one) is float and type(other) is float:
        return struct.pack("<d", one) == struct.pack("<d", other)
    return type(one) is type(other) and one == other


# Numbers

BIGINT = Encoding("integer", "bigint", frozenset({int}))
DOUBLE = Encoding("float", "double precision", frozenset({float}))


def _to_numeric(value: int | float) -> Decimal:
    if type(value) is int:
        return Decimal(value)
    if value == 0 and math.copysign(1, value) < 0:
        raise UnfitError  # PostgreSQL's numeric has one zero
    if math.isinf(value):
        return Decimal(value)
    text = format(Decimal(repr(value)), "f")
    return Decimal(text if "." in text else text + ".0")  # the scale tells a float from an integer


def _from_numeric(value: Decimal) -> int | float:
    return int(value) if value.is_finite() and value.as_tuple().exponent == 0 else float(value)


NUMERIC = Encoding("exact number", "numeric", frozenset({int, float}), _to_numeric, _from_numeric)


def _to_decimal(value: int | float, *, precision: int, scale: int) -> Decimal:
    number = Decimal(value) if type(value) is int else Decimal(repr(value))
    step = Decimal(1).scaleb(-scale)
    made = number.quantize(step, context=_EXACT) if abs(number) < 10 ** (precision - scale) else None
    if made is None or made != number or (made == 0 and number.is_signed()):
        raise UnfitError
    return made


def _from_decimal(value: Decimal) -> int | float:
    """A column for decimals holds whole numbers as integers, as far as they have 64 bits."""
    return int(value) if value == value.to_integral_value() and int(value) in _INT64 else float(value)


@cache
def decimal(precision: int, scale: int) -> Encoding:
    """Decimals of so many digits."""
    return Encoding(
        "decimal",
        f"numeric({precision},{scale})",
        frozenset({int, float}),
        partial(_to_decimal, precision=precision, scale=scale),
        _from_decimal,
    )


# Truth

_NUMBERS = {False: 0, True: 1}
BOOLEAN = Encoding(
    "0 and 1", "boolean", frozenset({int}), lambda v: bool(v) if v in (0, 1) else _refuse(), _NUMBERS.__getitem__
)


def _refuse() -> Any:
    raise UnfitError


def _truth(value: str, *, words: tuple[str, str]) -> bool:
    return bool(words.index(value))


def _word(value: bool, *, words: tuple[str, str]) -> str:
    return words[value]


TRUTH_WORDS = [
    Encoding(f"{no} and {yes}", "boolean", frozenset({str}), partial(_truth, words=pair), partial(_word, words=pair))
    for pair in (("f", "t"), ("false", "true"), ("False", "True"), ("FALSE", "TRUE"))
    for no, yes in (pair,)
]

# Text and bytes

TEXT = Encoding("text", "text", frozenset({str}))
BYTEA = Encoding("bytes", "bytea", frozenset({bytes}))


def _within(value: str, *, length: int) -> str:
    return value if len(value) <= length else _refuse()


def _itself(value: Any) -> Any:
    return value


@cache
def varchar(length: int) -> Encoding:
    """Text of at most so many characters."""
    return Encoding("text", f"varchar({length})", frozenset({str}), partial(_within, length=length), _itself)


def _json_text(value: Value) -> str:
    if isinstance(value, str):
        if value[:1] == "\ufeff":
            raise UnfitError
        json.loads(value, parse_constant=lambda _: _refuse())
        return value
    if isinstance(value, float) and math.isinf(value):
        raise UnfitError
    return as_text(value)


def _from_json_text(value: str) -> Value:
    """A number that is the whole of a JSON text is kept as a number by columns that prefer those."""
    return from_text(value, frozenset({int, float, str}))


JSON = Encoding(
    "JSON text", "json", frozenset({str, int, float}), _json_text, _from_json_text, indexable=False
)  # not jsonb, which would change white space, the order of keys, repeated keys and numbers
JSON_TEXT = Encoding("JSON text", "json", frozenset({str}), _json_text, _itself, indexable=False)

UUIDS = Encoding("uuid", "uuid", frozenset({str}), UUID, str)


def as_text(value: Value) -> str:
    """A value written out: numbers in their shortest exact form, bytes as `\\x` and hexadecimal digits."""
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return value if isinstance(value, str) else repr(value)


def from_text(value: str, kinds: frozenset[type]) -> Value:
    """The way back: what looks like one of these kinds, written by `as_text`, is one."""
    if bytes in kinds and _HEX.fullmatch(value):
        return bytes.fromhex(value[2:])
    if int in kinds and _INTEGER.fullmatch(value) and int(value) in _INT64:
        return int(value)
    if float in kinds and value != "nan":
        try:
            number = float(value)
        except ValueError:
            return value
        return number if repr(number) == value else value
    return value


def _mixed(name: str, *kinds: type) -> Encoding:
    return Encoding(name, "text", frozenset(kinds), as_text, partial(from_text, kinds=frozenset(kinds)))


MIXED = [
    _mixed("text, bytes as \\x…", str, bytes),
    _mixed("text, numbers written out", str, int, float),
    _mixed("text, numbers written out, bytes as \\x…", str, int, float, bytes),
]
WRITTEN_OUT = Encoding("text, everything written out", "text", frozenset({str, int, float, bytes}), as_text, None)
"""What is left where text and the written form of something else look the same: the kind of such a value is lost."""

# Times


@dataclass(frozen=True)
class _Form:
    """How a text writes a time: what is between date and time, digits of a second (-1: as needed, 0 or 6), what is behind."""

    between: str = ""
    digits: int | None = 0
    behind: str = ""

    def clock(self, moment: datetime | time) -> str:
        if self.digits is None:
            return moment.strftime("%H:%M")
        text = moment.strftime("%H:%M:%S")
        digits = (6 if moment.microsecond else 0) if self.digits < 0 else self.digits
        return text + (f".{moment.microsecond:06}"[: 1 + digits] if digits else "")

    def to_timestamp(self, value: str) -> datetime:
        found = _TIMESTAMP.fullmatch(value)
        if not found or found[2] != self.between or (found[6] or "") != self.behind:
            raise UnfitError
        return datetime.fromisoformat(value)

    def from_timestamp(self, moment: datetime) -> str:
        return f"{moment.date().isoformat()}{self.between}{self.clock(moment)}{self.behind}"

    def to_time(self, value: str) -> time:
        return time.fromisoformat(value) if _TIME.fullmatch(value) else _refuse()


_DIGITS = (-1, 0, 3, 6)
ZONED, _LOCAL = "timestamp with time zone", "timestamp without time zone"


def _timestamp_text(form: _Form) -> Encoding:
    shown = form.from_timestamp(datetime(2000, 12, 31, 23, 59, 59, 500000))
    kind = ZONED if form.behind else _LOCAL
    return Encoding(f"text like {shown}", kind, frozenset({str}), form.to_timestamp, form.from_timestamp)


TIMESTAMP_TEXTS = [
    _timestamp_text(_Form(between, digits, behind))
    for behind in ("", "Z", "+00:00")
    for between in (" ", "T")
    for digits in (*_DIGITS, None)
]
TIME_TEXTS = [
    Encoding(
        f"text like {form.clock(time(23, 59, 59, 500000))}",
        "time without time zone",
        frozenset({str}),
        form.to_time,
        form.clock,
    )
    for form in (_Form(digits=digits) for digits in _DIGITS)
]
DATE_TEXT = Encoding(
    "text like 2000-12-31",
    "date",
    frozenset({str}),
    lambda v: date.fromisoformat(v) if len(v) == 10 else _refuse(),
    date.isoformat,
)


def _from_unix(value: int | float, *, per_second: int) -> datetime:
    if not UNIX_TIMES.start * per_second <= value < UNIX_TIMES.stop * per_second:
        raise UnfitError
    return _EPOCH + timedelta(microseconds=round(Fraction(value) * 1_000_000 / per_second))


def _to_unix(moment: datetime, *, per_second: int) -> int | float:
    number = Fraction((moment - _EPOCH) // timedelta(microseconds=1), 1_000_000) * per_second
    return number.numerator if number.denominator == 1 else float(number)


UNIX = [
    Encoding(
        f"unix {unit}",
        ZONED,
        frozenset({int, float}),
        partial(_from_unix, per_second=per_second),
        partial(_to_unix, per_second=per_second),
    )
    for unit, per_second in (("seconds", 1), ("milliseconds", 1_000), ("microseconds", 1_000_000))
]


def _from_julian(value: int | float) -> datetime:
    if not JULIAN_DAYS.start <= value < JULIAN_DAYS.stop:
        raise UnfitError
    return datetime(1970, 1, 1) + timedelta(microseconds=round((Fraction(value) - _JULIAN_EPOCH) * 86_400_000_000))


def _to_julian(moment: datetime) -> int | float:
    days = Fraction((moment - datetime(1970, 1, 1)) // timedelta(microseconds=1), 86_400_000_000) + _JULIAN_EPOCH
    return days.numerator if days.denominator == 1 else float(days)


JULIAN = Encoding("julian days", _LOCAL, frozenset({int, float}), _from_julian, _to_julian)

# What a declared type may become


def candidates(column: Column) -> list[Encoding]:
    """The encodings of a column, in order; those of its declared type come first."""
    return [*declared(column), *_LATER[column.kind]]


def declared(column: Column) -> list[Encoding]:
    """Encodings that keep the declared type; where it says nothing, what there is in the column says it."""
    if column.kind == "text" and column.length and column.length <= LONGEST_VARCHAR:
        return [varchar(column.length)]
    if column.kind == "numeric" and column.precision and column.scale <= column.precision <= LARGEST_PRECISION:
        return [decimal(column.precision, column.scale)]
    return _DECLARED[column.kind]


_TIMES = [*TIMESTAMP_TEXTS, *UNIX, JULIAN]
_ANY = [BIGINT, DOUBLE, NUMERIC]
_DECLARED: dict[str, list[Encoding]] = {
    "any": [TEXT, BIGINT, DOUBLE, BYTEA],
    "blob": [BYTEA],
    "boolean": [BOOLEAN, *TRUTH_WORDS],
    "date": [DATE_TEXT],
    "integer": [BIGINT],
    "json": [JSON_TEXT, JSON],
    "numeric": [NUMERIC],
    "real": [DOUBLE],
    "text": [TEXT],
    "time": TIME_TEXTS,
    "timestamp": _TIMES,
    "uuid": [UUIDS],
}
_LATER: dict[str, list[Encoding]] = {
    "any": [NUMERIC, *MIXED],
    "blob": [TEXT, *_ANY, *MIXED],
    "boolean": [*_ANY, TEXT, *MIXED],
    "date": [*_TIMES, *_ANY, TEXT, *MIXED],
    "integer": [NUMERIC, DOUBLE, TEXT, *MIXED],
    "json": [TEXT, *MIXED],
    "numeric": [NUMERIC, DOUBLE, TEXT, *MIXED],
    "real": [NUMERIC, TEXT, *MIXED],
    "text": [TEXT, *MIXED],
    "time": [*_ANY, TEXT, *MIXED],
    "timestamp": [DATE_TEXT, *_ANY, TEXT, *MIXED],
    "uuid": [TEXT, *MIXED],
}
