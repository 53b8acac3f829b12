"""Writes small PDFs: enough for text on pages, bookmarks and a title."""

from __future__ import annotations

from collections.abc import Sequence


def pdf_bytes(
    pages: Sequence[Sequence[str]],
    *,
    title: str = "",
    author: str = "",
    bookmarks: Sequence[tuple[str, int]] = (),
) -> bytes:
    """
    A PDF with lines of text in Helvetica.

    :param pages: Lines of each page, in Latin-1.
    :param title: Its title property.
    :param author: Its author property.
    :param bookmarks: Titles with the pages, from 1, that they lead to.
    """
    first_page = 5
    first_mark = first_page + 2 * len(pages)
    objects = {
        1: f"<< /Type /Catalog /Pages 2 0 R{f' /Outlines {first_mark} 0 R' if bookmarks else ''} >>",
        2: f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(f'{first_page + 2 * n} 0 R' for n in range(len(pages)))}] >>",
        3: "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        4: f"<< /Title ({_escaped(title)}) /Author ({_escaped(author)}) >>",
    }
    for number, lines in enumerate(pages):
        shown = " ".join(f"({_escaped(line)}) Tj T*" for line in lines)
        stream = f"BT /F1 11 Tf 14 TL 72 770 Td {shown} ET"
        objects[first_page + 2 * number] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {first_page + 2 * number + 1} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects[first_page + 2 * number + 1] = f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream"
    if bookmarks:
        last = first_mark + len(bookmarks)
        objects[first_mark] = (
            f"<< /Type /Outlines /First {first_mark + 1} 0 R /Last {last} 0 R /Count {len(bookmarks)} >>"
        )
        for place, (name, page) in enumerate(bookmarks, first_mark + 1):
            previous = f" /Prev {place - 1} 0 R" if place > first_mark + 1 else ""
            following = f" /Next {place + 1} 0 R" if place < last else ""
            objects[place] = (
                f"<< /Title ({_escaped(name)}) /Parent {first_mark} 0 R{previous}{following}"
                f" /Dest [{first_page + 2 * (page - 1)} 0 R /Fit] >>"
            )
    return _assembled(objects)


def _assembled(objects: dict[int, str]) -> bytes:
    data, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in sorted(objects.items()):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    start = len(data)
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    data += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode()
    data += f"trailer << /Size {len(objects) + 1} /Root 1 0 R /Info 4 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(data)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
