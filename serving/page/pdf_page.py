"""
Pages of PDFs as pictures, made in a process of their own: a damaged file may take it down, but not the service.

The process gets the file's bytes, no environment, little time and little memory.
"""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import suppress

TIMEOUT = 20.0
"""Seconds that one page may take."""

MEMORY = 2 * 1024**3
"""Bytes of address space that the process may use."""

WIDTH = 1200
"""Pixels across; twice what a panel has, for sharp screens."""

MOST_PIXELS = 4_000_000
_PROGRAM = "import sys; sys.path[:] = {path!r}; from serving.page.pdf_page import render; render({page}, {quote!r})"

_turns = asyncio.Semaphore(2)


async def page_picture(data: bytes, page: int, *, quote: str = "") -> bytes | None:
    """
    One page as PNG.

    :param data: The PDF.
    :param page: Its number, from 1.
    :param quote: What to highlight, where it is found on the page.
    :returns: The picture; `None` if there is no such page, or the file cannot be shown.
    """
    program = _PROGRAM.format(path=sys.path, page=int(page), quote=quote)
    async with _turns:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
        )
        try:
            picture, _ = await asyncio.wait_for(process.communicate(data), TIMEOUT)
        except (TimeoutError, ConnectionError):
            picture = b""
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return picture if process.returncode == 0 and picture.startswith(b"\x89PNG") else None


def render(number: int, quote: str) -> None:
    """The far end: read a PDF from standard input, write a page of it as PNG to standard output."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(TIMEOUT), int(TIMEOUT)))
    import pypdfium2
    from PIL import Image, ImageChops, ImageDraw

    with pypdfium2.PdfDocument(sys.stdin.buffer.read()) as pdf:
        page = pdf[number - 1]
        width, height = page.get_size()
        scale = min(WIDTH / width, (MOST_PIXELS / (width * height)) ** 0.5)
        image = page.render(scale=scale).to_pil().convert("RGB")
        marker = Image.new("RGB", image.size, "white")
        draw = ImageDraw.Draw(marker)
        for left, bottom, right, top in _places(page, quote):
            draw.rectangle(
                (left * scale, (height - top) * scale, right * scale, (height - bottom) * scale), fill="#ffe58a"
            )
        # What is darker stays, as under a marker on paper.
        ImageChops.multiply(image, marker).save(sys.stdout.buffer, format="PNG")


def _places(page: object, quote: str) -> list[tuple[float, float, float, float]]:
    """Rectangles of a quote on a page, in points from its lower left corner."""
    words = quote.split()
    if not words:
        return []
    text = page.get_textpage()  # type: ignore[attr-defined]
    start, length = _find(text.get_text_range(), words)
    if not length:
        return []
    return [text.get_rect(n) for n in range(text.count_rects(start, length))]


def _find(text: str, words: list[str]) -> tuple[int, int]:
    """Where words stand one behind the other, whatever stands between them; all of them, or else the first ones."""
    for wanted in (words, words[:8], words[:4]):
        pattern = r"[\s\x02\xad\ufffe-]*".join(map(re.escape, wanted))
        if found := re.search(pattern, text):
            return found.start(), found.end() - found.start()
    return 0, 0
