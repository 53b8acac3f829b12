"""
Chainlit, loaded with settings of ours.

Hayhooks' own way of mounting it runs a second server behind the page, copies its logos beside the program, and publishes
a folder without a login; `chainlit.utils.mount_chainlit` changes an app that already runs. Both end in mounting
`chainlit.server.app`, which is what happens here.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

STATIC = Path(__file__).with_name("static")
TOKEN_COOKIE = "synapse_page_token"
"""Chainlit's own cookie. It never leaves the process: the page's door makes it for each request that it lets in."""

_CONFIG = """\
[project]
session_timeout = 3600
user_session_timeout = 43200
allow_origins = []

[features]
unsafe_allow_html = false
latex = false
user_message_markdown = false
edit_message = false
favorites = false
allow_thread_sharing = false

[features.spontaneous_file_upload]
enabled = false

[features.mcp]
enabled = false

[UI]
name = "Synapse"
description = "Answers from your documents, with their sources."
language = "en-US"
cot = "hidden"
default_sidebar_state = "open"
confirm_new_chat = false

[meta]
generated_by = "{version}"
"""


@functools.cache
def load_chainlit() -> Any:
    """Chainlit's ASGI app, with our handlers; one per process."""
    root = _prepared_folder()
    with _environment(
        CHAINLIT_APP_ROOT=str(root), CHAINLIT_ENV_FILE=os.devnull, CHAINLIT_AUTH_COOKIE_NAME=TOKEN_COOKIE
    ):
        import chainlit.server
    # Read whenever a token is made or checked, so it stays; it guards nothing outside this process.
    os.environ["CHAINLIT_AUTH_SECRET"] = secrets.token_hex(32)

    from serving.page.handlers import register

    register()
    return chainlit.server.app


def _prepared_folder() -> Path:
    """A folder of this process alone, as Chainlit writes into its own; it goes when the process ends."""
    root = Path(tempfile.mkdtemp(prefix="synapse-page-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    settings = root / ".chainlit"
    (settings / "translations").mkdir(parents=True)
    (settings / "config.toml").write_text(_CONFIG.format(version=version("chainlit")), encoding="utf-8")
    shutil.copytree(STATIC, root / "public")
    # What it holds would stand behind a button; Chainlit looks for it with every page, and warns where it is missing.
    (root / "chainlit_en-US.md").write_text("", encoding="utf-8")
    (settings / "translations" / "en-US.json").write_text(json.dumps(_texts()), encoding="utf-8")
    return root


def _texts() -> dict[str, Any]:
    """Chainlit's English texts, with ours in the place of those that speak of something else."""
    from importlib.util import find_spec

    spec = find_spec("chainlit")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'chainlit'", name="chainlit")
    theirs = json.loads((Path(spec.origin).parent / "translations" / "en-US.json").read_text(encoding="utf-8"))
    ours = json.loads(Path(__file__).with_name("texts.json").read_text(encoding="utf-8"))
    merged: dict[str, Any] = _merged(theirs, ours)
    return merged


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables while Chainlit is imported, which reads them then and never again."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
