"""
Hayhooks' application without anything that Hayhooks offers by default. The only module that imports it.

Its routes deploy uploaded Python, draw and trace; its settings come from the environment, and its import reads the `.env`
of the working folder. Here its settings are ours alone, its routes are gone, and its registry is one that cannot change.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any


@contextmanager
def _own_environment() -> Iterator[None]:
    """While it is imported: an environment without its variables; and afterwards, without those of a foreign `.env`."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("HAYHOOKS_") or name == "LOG":
            del os.environ[name]
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


with _own_environment():
    from hayhooks import BasePipelineWrapper
    from hayhooks.server.app import create_app
    from hayhooks.server.pipelines.registry import ImmutablePipelineRegistry, PipelineRegistration
    from hayhooks.server.tracing import SPAN_OPENAI_RUN, SPAN_PIPELINE_RUN, trace_async_stream, trace_operation
    from hayhooks.server.utils.module_loader import create_pipeline_wrapper_instance
    from hayhooks.settings import AppSettings, settings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = [
    "SPAN_OPENAI_RUN",
    "SPAN_PIPELINE_RUN",
    "BasePipelineWrapper",
    "bare_app",
    "trace_async_stream",
    "trace_operation",
]

KEPT_ROUTES = ("/openapi.json",)
"""Not `/docs`: a browser sends no key, and its script would come from another host."""

_SETTINGS: dict[str, Any] = {
    "pipelines_dir": "",  # the default, ./pipelines, is a package of ours, which Hayhooks would deploy
    "monitoring_enabled": False,
    "tracing_enabled": False,
    "tracing_include_haystack_spans": False,
    "cors_allow_origins": [],
    "cors_allow_methods": [],
    "cors_allow_headers": [],
    "intercepted_loggers": ["hayhooks"],  # an empty list means uvicorn's, too, whose log is ours to shape
}


def bare_app(wrappers: Mapping[str, BasePipelineWrapper]) -> FastAPI:
    """
    Hayhooks' application with these pipelines and no route but the OpenAPI description's.

    :param wrappers: The pipelines by name, made and configured; `app.state.pipeline_registry` knows them, and no others
        can be added.
    """
    for name, field in AppSettings.model_fields.items():
        setattr(settings, name, _SETTINGS.get(name, field.get_default(call_default_factory=True)))
    app: FastAPI = create_app()
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) in KEPT_ROUTES]
    app.user_middleware.clear()  # CORS for everyone, and request ids, which are ours to give
    app.state.pipeline_registry = ImmutablePipelineRegistry(
        PipelineRegistration(name, _prepared(wrapper), {}) for name, wrapper in wrappers.items()
    )
    return app


def _prepared(wrapper: BasePipelineWrapper) -> BasePipelineWrapper:
    """Hayhooks sets a wrapper up where it makes it from the class `PipelineWrapper` of a module."""
    return create_pipeline_wrapper_instance(SimpleNamespace(PipelineWrapper=lambda: wrapper))
