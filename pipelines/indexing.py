"""The indexing pipeline: route, convert, clean, split, tell the language, embed, write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haystack import Pipeline
from haystack.utils import Secret

from components.code_converter import CodeConverter
from components.csv_converter import CSVConverter
from components.docx_converter import DOCXConverter
from components.html_converter import HTMLConverter
from components.json_converter import JSONConverter
from components.language_detector import LanguageDetector
from components.markdown_converter import MarkdownConverter
from components.model_files import DEFAULT_MODEL
from components.pdf_converter import PDFConverter
from components.pptx_converter import PPTXConverter
from components.section_splitter import SectionSplitter
from components.source_router import SourceRouter
from components.text_cleaner import TextCleaner
from components.text_converter import TextConverter
from components.xlsx_converter import XLSXConverter
from pipelines.embedding import document_embedder
from pipelines.fingerprint import fingerprint

if TYPE_CHECKING:
    from config import Settings

_CONVERTERS: dict[str, Any] = {
    "markdown": MarkdownConverter,
    "text": TextConverter,
    "html": HTMLConverter,
    "pdf": PDFConverter,
    "docx": DOCXConverter,
    "pptx": PPTXConverter,
    "xlsx": XLSXConverter,
    "csv": CSVConverter,
    "json": JSONConverter,
    "code": CodeConverter,
}
"""By the router's output."""


def build_preparation_pipeline(settings: Settings) -> Pipeline:
    """
    The half that needs neither a model's weights nor a database: files to chunks.

    Run it with `{"router": {"sources": [path, …], "meta": [{…}, …]}}`. It gives `language.documents`, the chunks, and
    `splitter.sources`, the converted texts that the chunks' spans point into.

    :param settings: The embedding model (the default one, where they name none), whose tokens limit the chunks, and the
        largest size of a file.
    """
    pipeline = Pipeline()
    pipeline.add_component("router", SourceRouter(max_bytes=settings.max_file_bytes))
    pipeline.add_component("cleaner", TextCleaner())
    for name, converter in _CONVERTERS.items():
        pipeline.add_component(f"{name}_converter", converter())
        pipeline.connect(f"router.{name}", f"{name}_converter.sources")
        pipeline.connect(f"{name}_converter.documents", "cleaner.documents")
    pipeline.add_component(
        "splitter",
        SectionSplitter(model=settings.embedding_model or DEFAULT_MODEL, remote=bool(settings.embedding_base_url)),
    )
    pipeline.add_component("language", LanguageDetector())
    pipeline.connect("cleaner.documents", "splitter.documents")
    pipeline.connect("splitter.documents", "language.documents")
    return pipeline


def build_indexing_pipeline(settings: Settings) -> Pipeline:
    """
    Files to rows: the preparation, then the embedder and the writer.

    Run it like the preparation; it gives `writer.chunks`, how many were written. It can be saved with `dumps()` and
    loaded with `Pipeline.loads(text, allowed_modules=["components.*"])`. `synapse.py index` runs the same components,
    in bounded batches, and only on what has changed.

    :param settings: Model (the default one, where they name none), database and sizes.
    """
    from components.source_writer import SourceWriter

    pipeline = build_preparation_pipeline(settings)
    model = settings.embedding_model or DEFAULT_MODEL
    pipeline.add_component("embedder", document_embedder(settings, model))
    pipeline.add_component(
        "writer",
        SourceWriter(
            model=model,
            connection_string=_connection_string(settings),
            home=str(settings.home),
            fingerprint=fingerprint(settings),
            tenant=settings.tenant,
        ),
    )
    pipeline.connect("language.documents", "embedder.documents")
    pipeline.connect("embedder.documents", "writer.documents")
    pipeline.connect("splitter.sources", "writer.sources")
    return pipeline


def _connection_string(settings: Settings) -> Secret:
    """From the environment, so that it can be saved, unless the settings came from elsewhere."""
    if settings.database_url and not settings.from_environment:
        return Secret.from_token(settings.database_url)
    return Secret.from_env_var("DATABASE_URL", strict=False)
