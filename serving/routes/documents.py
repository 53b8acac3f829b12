"""`/documents` and `/fields`: what is in the index of the caller's tenant, adding to it, and removing from it."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request

from database.contents import fields as fields_of
from database.source_listing import list_sources
from serving.callers import caller
from serving.routes.forms import FieldsBody, JobBody, RemovedBody, SourcesBody, errors
from serving.service import Service

router = APIRouter(tags=["documents"])

_FILES = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}


@router.get("/documents", response_model=SourcesBody, responses=errors(), summary="List sources")
async def documents(
    request: Request,
    after: Annotated[str, Query(description="The last source of the page before.", max_length=4000)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Any:
    """The sources of the index by name, also those that are kept out, with the reason."""
    service = _service(request)
    tenant = caller().tenant

    def read() -> list[dict[str, Any]]:
        return list_sources(service.ledger(tenant), after=after, limit=limit + 1)

    found = await service.in_thread(read)
    return {"sources": found[:limit], "next_after": found[limit - 1]["source"] if len(found) > limit else None}


@router.post(
    "/documents",
    status_code=202,
    response_model=JobBody,
    responses=errors(409, 415, 507),
    openapi_extra=_FILES,
    summary="Upload files",
)
async def upload(
    request: Request,
    replace: Annotated[bool, Query(description="Whether files of the same name may be replaced.")] = False,
) -> Any:
    """Store files, and index them in the background; the answer's id is what to ask for their progress with."""
    size = request.headers.get("content-length", "")
    job = await _service(request).uploads.receive(
        caller(),
        request.stream(),
        content_type=request.headers.get("content-type", ""),
        size=int(size) if size.isdecimal() else None,
        replace_=replace,
    )
    return job.to_dict()


@router.get("/documents/jobs/{id}", response_model=JobBody, responses=errors(404), summary="Progress of an upload")
async def job(id: UUID, request: Request) -> Any:
    """How far an upload of the caller's is; it can be asked for until a week after its end."""
    return _service(request).uploads.job(caller(), id).to_dict()


@router.delete("/documents/{source:path}", response_model=RemovedBody, responses=errors(404), summary="Remove a source")
async def remove(source: Annotated[str, Path(max_length=4000)], request: Request) -> Any:
    """Remove a source from the index, and its file where it was uploaded."""
    service = _service(request)
    chunks, file_removed = await service.in_thread(service.uploads.remove, caller().tenant, source)
    return {"source": source, "chunks": chunks, "file_removed": file_removed}


@router.get("/fields", response_model=FieldsBody, responses=errors(), summary="Fields to filter by")
async def fields(request: Request) -> Any:
    """The metadata fields that occur, with their types and some of their values."""
    service = _service(request)
    tenant = caller().tenant
    return {"fields": await service.in_thread(lambda: fields_of(service.ledger(tenant)))}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service
