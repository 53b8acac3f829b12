"""Bytes to text, or a reason why they are none."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

from database.errors import InvalidInputError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16's, hence first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LEGACY = [
    "cp1252",
    "cp1250",
    "cp1251",
    "cp1253",
    "cp1254",
    "koi8_r",
    "shift_jis",
    "euc_jp",
    "gb18030",
    "big5",
    "cp949",
]
_HIGH = frozenset(range(0x80, 0x100))
_WESTERN = frozenset("äöüÄÖÜßàâæçéèêëîïôœùûÿÀÂÇÉÈÊËÎÏÔÙÛñÑáíóúÁÍÓÚ¿¡åÅøØãõÃÕìò€‚„…†‰‹‘’“”•–—™›§°«»·´ ".encode("cp1252"))  # noqa: RUF001
"""Bytes of western Europe's letters. The encodings of its neighbours share most of them, and a short text fits all."""

_SAMPLE = 64 * 1024
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def decoded(data: bytes) -> str:
    """
    Decode a text file: UTF-8 or UTF-16 as its first bytes say, else UTF-8, else the legacy encoding that fits.

    :param data: The file's bytes.
    :raises InvalidInputError: If it is binary, damaged UTF-8, or fits no encoding.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _checked(_strict(data, encoding))
    if b"\0" in data[:_SAMPLE]:
        return _checked(_strict(data, _utf16_without_mark(data)))
    try:
        return _checked(data.decode("utf-8"))
    except UnicodeDecodeError as exc:
        _refuse_damaged_utf8(data, exc.start)
    return _checked(_strict(data, _legacy_encoding(data)))


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        name = encoding.upper().removesuffix("-SIG")
        raise InvalidInputError(f"it looks like {name}, but its byte {exc.start:,} is not") from exc


def _utf16_without_mark(data: bytes) -> str:
    """Latin text in UTF-16 has a zero in nearly every second byte; other zeros mean a binary file."""
    sample = data[: _SAMPLE & ~1]
    even, odd = sample[0::2].count(0) / len(sample), sample[1::2].count(0) / len(sample)
    if len(data) % 2 == 0 and max(even, odd) > 0.3 and min(even, odd) < 0.02:
        return "utf-16-be" if even > odd else "utf-16-le"
    raise InvalidInputError("it is a binary file, not text: it has zero bytes")


def _refuse_damaged_utf8(data: bytes, first: int) -> None:
    """A text that is UTF-8 but for a few bytes would come out garbled in any other encoding."""
    sample = data[max(0, first - _SAMPLE) : first + _SAMPLE]
    text = sample.decode("utf-8", "replace")
    wrong = text.count("�")
    right = sum(not character.isascii() for character in text) - wrong
    if right > 2 * wrong:
        raise InvalidInputError(f"it is UTF-8, but damaged at byte {first:,}")


def _legacy_encoding(data: bytes) -> str:
    # A text may be ASCII for long: what tells the encoding are the lines with other bytes.
    telling = b"\n".join(line for line in data[: 16 * _SAMPLE].split(b"\n") if not line.isascii()) or data[-_SAMPLE:]
    sample = telling[:_SAMPLE] if len(telling) <= _SAMPLE else telling[:_SAMPLE].rpartition(b" ")[0] or telling
    best = from_bytes(sample, cp_isolation=_LEGACY).best()
    if best is None:
        raise InvalidInputError("its encoding is unknown: it is neither UTF-8, UTF-16 nor a legacy encoding of text")
    if best.encoding in ("cp1250", "cp1254") and set(sample) & _HIGH <= _WESTERN:
        return "cp1252"
    return best.encoding


def _checked(text: str) -> str:
    controls = len(_CONTROL.findall(text))
    if "\0" in text or controls > 8 + len(text) // 200:
        raise InvalidInputError("it is a binary file, not text: it is full of control characters")
    return text
