"""
The pickle beside a Chroma segment, read as a stream of opcodes: nothing is unpickled, so nothing in it can run.

It maps ids to the labels that the index files know. chromadb 0.4 to 0.6 wrote an object of the class `PersistentData`
(protocol 4 or 5, with memo), from 1.0 on serde_pickle writes a dictionary (protocol 3, without). In both, the fields come
in one order: dimensionality, total_elements_added, max_seq_id (not always), id_to_label, and then two that repeat it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from database.errors import InvalidInputError
from migration.sources.files import CHUNK, open_regular

SMALL_FIELDS = ("dimensionality", "total_elements_added", "max_seq_id")
PROTO, FRAME, STOP = 0x80, 0x95, 0x2E
MARK, EMPTY_DICT, EMPTY_TUPLE, NONE = 0x28, 0x7D, 0x29, 0x4E
SETITEM, SETITEMS, STACK_GLOBAL, NEWOBJ = 0x73, 0x75, 0x93, 0x81
SHORT_TEXT, TEXT, LONG_TEXT = 0x8C, 0x58, 0x8D
BYTE, TWO_BYTES, FOUR_BYTES, LONG = 0x4B, 0x4D, 0x4A, 0x8A
MEMOIZE, PUT, LONG_PUT, GET, LONG_GET = 0x94, 0x71, 0x72, 0x68, 0x6A

Label = tuple[bytes, int]


class SegmentPickle:
    """
    An `index_metadata.pickle`, opened.

    :param path: The file.
    :raises InvalidInputError: If it is not what a chromadb version writes; the message names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fields: dict[str, int | None] = {}
        self._file = open_regular(path)
        self._left = self._file.seek(0, 2)
        self._check_end()
        self._buffer, self._at = b"", 0
        self._last: bytes | None = None
        self._memo: dict[int, bytes] = {}
        self._memoized = 0
        try:
            self._read_head()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> SegmentPickle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def max_seq_id(self) -> int | None:
        """The last entry of the log that is in the index; `None` where another table says so."""
        return self.fields.get("max_seq_id")

    def labels(self) -> Iterator[Label]:
        """Each id, as UTF-8, with its label; to be read once."""
        if self._next() != EMPTY_DICT:
            self._refuse("a dictionary of labels was expected")
        while True:
            opcode = self._next()
            if opcode == MARK:
                yield from self._batch()
            elif opcode in (SHORT_TEXT, TEXT, LONG_TEXT, GET, LONG_GET):
                key = self._text(opcode)
                opcode = self._next()
                if opcode == EMPTY_DICT:  # the next field
                    return
                yield key, self._integer(opcode)
                if self._next() != SETITEM:
                    self._refuse("the end of an item was expected")
            elif opcode == SETITEMS:  # of the fields: there were no more
                return
            else:
                self._refuse(f"opcode {opcode:#04x} stands between labels")

    def _batch(self) -> Iterator[Label]:
        """Pairs up to the end of a batch; each as `_quick_pairs` has it, or else opcode by opcode."""
        while True:
            yield from self._quick_pairs()
            opcode = self._next()
            if opcode == SETITEMS:
                return
            key = self._text(opcode)
            yield key, self._integer(self._next())

    def _quick_pairs(self) -> Iterator[Label]:
        """
        Pairs as long as they are the usual ones and lie in the buffer whole.

        Almost everything that a pickle holds goes through here, hence without a call for each opcode.
        """
        if len(self._buffer) - self._at < 600:
            self._fill(600)
        buffer, at, last = self._buffer, self._at, len(self._buffer) - 32
        while at < last:
            if buffer[at] == SHORT_TEXT:
                start = at + 2
                end = start + buffer[at + 1]
            elif buffer[at] == TEXT:
                start = at + 5
                end = start + int.from_bytes(buffer[at + 1 : start], "little")
            else:
                break
            if end > last:
                break
            memoized = buffer[end] == MEMOIZE
            value = end + memoized
            opcode = buffer[value]
            if opcode == TWO_BYTES:
                label, after = buffer[value + 1] | buffer[value + 2] << 8, value + 3
            elif opcode == FOUR_BYTES:
                label, after = int.from_bytes(buffer[value + 1 : value + 5], "little", signed=True), value + 5
            elif opcode == BYTE:
                label, after = buffer[value + 1], value + 2
            else:
                break
            self._memoized += memoized
            yield buffer[start:end], label
            at = after
        self._at = at

    def _check_end(self) -> None:
        """A file that was cut off does not end in STOP."""
        self._file.seek(max(0, self._left - 1))
        if self._file.read(1) != bytes([STOP]):
            self._refuse("it is cut off, or no pickle")
        self._file.seek(0)

    def _read_head(self) -> None:
        if self._next() != PROTO or self._take(1)[0] not in (2, 3, 4, 5):
            self._refuse("a pickle of protocol 2 to 5 was expected")
        opcode = self._next()
        if opcode != EMPTY_DICT:
            self._read_class(opcode)
        if self._next() != MARK:
            self._refuse("fields were expected")
        while (name := self._text(self._next()).decode("utf-8", "replace")) != "id_to_label":
            if name not in SMALL_FIELDS:
                self._refuse(f"the field {name[:50]!r} is unknown")
            opcode = self._next()
            self.fields[name] = None if opcode == NONE else self._integer(opcode)

    def _read_class(self, opcode: int) -> None:
        """`PersistentData.__new__(PersistentData)`, in the opcodes of protocol 4 and 5."""
        names = self._text(opcode), self._text(self._next())
        if names != (b"chromadb.segment.impl.vector.local_persistent_hnsw", b"PersistentData"):
            self._refuse(f"it holds the class {names[0][:99]!r} {names[1][:99]!r}")
        if [self._next() for _ in range(4)] != [STACK_GLOBAL, EMPTY_TUPLE, NEWOBJ, EMPTY_DICT]:
            self._refuse("an object was expected")

    def _next(self) -> int:
        """The next opcode that says something, without those about frames and the memo."""
        while True:
            opcode = self._take(1)[0]
            if opcode == MEMOIZE:
                self._remember(self._memoized)
                self._memoized += 1
            elif opcode == PUT:
                self._remember(self._take(1)[0])
            elif opcode == LONG_PUT:
                self._remember(int.from_bytes(self._take(4), "little"))
            elif opcode == FRAME:
                self._take(8)
            else:
                self._last = None
                return opcode

    def _remember(self, index: int) -> None:
        """An id may be the same object as the name of a field; ids themselves never repeat."""
        if index < 16 and self._last is not None:
            self._memo[index] = self._last

    def _text(self, opcode: int) -> bytes:
        if opcode == SHORT_TEXT:
            size = self._take(1)[0]
        elif opcode == TEXT:
            size = int.from_bytes(self._take(4), "little")
        elif opcode == LONG_TEXT:
            size = int.from_bytes(self._take(8), "little")
        elif opcode in (GET, LONG_GET):
            index = int.from_bytes(self._take(1 if opcode == GET else 4), "little")
            if (known := self._memo.get(index)) is None:
                self._refuse(f"it refers to entry {index} of its memo, which is no text")
            return known
        else:
            self._refuse(f"a text was expected, not opcode {opcode:#04x}")
        self._last = self._take(size)
        return self._last

    def _integer(self, opcode: int) -> int:
        if opcode == BYTE:
            return self._take(1)[0]
        if opcode == TWO_BYTES:
            return int.from_bytes(self._take(2), "little")
        if opcode == FOUR_BYTES:
            return int.from_bytes(self._take(4), "little", signed=True)
        if opcode == LONG:
            size = self._take(1)[0]
            if size <= 8:
                return int.from_bytes(self._take(size), "little", signed=True)
        self._refuse(f"an integer was expected, not opcode {opcode:#04x}")

    def _take(self, size: int) -> bytes:
        if len(self._buffer) - self._at < size:
            self._fill(size)
            if len(self._buffer) < size:
                self._refuse("it is cut off")
        start, self._at = self._at, self._at + size
        return self._buffer[start : self._at]

    def _fill(self, size: int) -> None:
        """Have this many bytes at hand, and a good deal more, unless the file ends before."""
        wanted = min(self._left, max(size, CHUNK))
        self._buffer, self._at = self._buffer[self._at :] + self._file.read(wanted), 0
        self._left -= wanted

    def _refuse(self, found: str) -> NoReturn:
        raise InvalidInputError(
            f"{self.path} is not what chromadb writes there: {found}.",
            hint="Restore the folder from a backup, or let the chromadb that wrote it repair it.",
        )
