"""
A pipeline of one's own from the same components: retrieve, filter, and nothing else; saved to YAML and loaded again.

    python -m examples.own_pipeline
"""

import tempfile
from pathlib import Path

from haystack import Pipeline

from components.embedders import TextEmbedder
from components.hybrid_retriever import HybridRetriever
from components.metadata_filter import MetadataFilter
from config import Settings
from pipelines.query import ALLOWED_MODULES, document_store, question_model


def build(settings: Settings) -> Pipeline:
    """Three components, connected as any others in Haystack."""
    model = question_model(settings)
    pipeline = Pipeline()
    pipeline.add_component("embedder", TextEmbedder(model=model.model))
    pipeline.add_component("filter", MetadataFilter(scope="not draft"))
    pipeline.add_component("retriever", HybridRetriever(document_store(settings, model), top_k=3))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("filter.filters", "retriever.filters")
    return pipeline


def main() -> None:
    """Save it, load it, run it."""
    file = Path(tempfile.mkdtemp()) / "pipeline.yaml"
    file.write_text(build(Settings.from_env()).dumps())  # names the variables that hold secrets, not the secrets

    loaded = Pipeline.loads(file.read_text(), allowed_modules=ALLOWED_MODULES)
    question = "When is the observatory closed?"
    result = loaded.run(
        {"embedder": {"text": question}, "retriever": {"query": question}, "filter": {"filters": 'lang == "en"'}}
    )
    for document in result["retriever"]["documents"]:
        print(f"{document.score:.2f}  {document.meta['source'].rsplit('/', 1)[-1]}  {document.meta.get('heading')}")


if __name__ == "__main__":
    main()
