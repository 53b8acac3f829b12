"""
Indexing against the embedder alone, on the same chunks: what conversion, database and overlap cost.

    python -m benchmarks.indexing_throughput FOLDER [--limit N]

The embedder alone runs before and after the indexing, so that a machine that slows down does not count against either. Model
and converter process have been started when the clock starts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring import MISSED, seconds, temporary_home
from config import Settings
from pipelines.api import open_ledger, sync_rules
from pipelines.indexing_driver import IndexingDriver
from pipelines.source_files import scan
from pipelines.sync import SyncPlan, plan_sync


def chunks_of(plan: SyncPlan, settings: Settings) -> list[Any]:
    """The chunks that the plan embeds, made in this process."""
    from pipelines.indexing import build_preparation_pipeline
    from pipelines.preparation import prepare

    pipeline = build_preparation_pipeline(settings)
    pipeline.warm_up()
    return [d for planned in plan.to_convert for d in prepare(pipeline, planned.path, planned.meta).documents]


def main() -> None:
    """Measure, print, and end with 5 below the threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, help="files to take, by name")
    parser.add_argument("--threshold", type=float, default=0.9)
    arguments = parser.parse_args()

    with temporary_home() as home:
        settings = Settings(home=home)
        ledger = open_ledger(settings)
        rules = sync_rules(settings)
        files = sorted(scan([arguments.folder], suffixes=rules.suffixes).files)[: arguments.limit]
        with IndexingDriver(settings, ledger=ledger) as driver:
            driver.apply(plan_sync(files[:1], ledger, rules=rules))  # starts the converter, loads the model
            plan = plan_sync(files, ledger, rules=rules)
            documents = chunks_of(plan, settings)
            embedder = driver.warm_embedder()
            embedder.run(documents=documents[:64])
            before = seconds(embedder.run, documents=documents)
            indexing = seconds(driver.apply, plan)
            after = seconds(embedder.run, documents=documents)
        alone = (before + after) / 2
        ratio = alone / indexing
        print(f"files {len(files)}, chunks {len(documents)}, written {driver.result.chunks}")
        print(f"embedder alone  {before:7.1f} s, {after:7.1f} s  {len(documents) / alone:7.1f} chunks/s")
        print(f"indexing        {indexing:7.1f} s            {len(documents) / indexing:7.1f} chunks/s")
        print(f"ratio           {ratio:7.2f}   (at least {arguments.threshold})")
        ledger.database.close()
        if ledger.database.server is not None:
            ledger.database.server.stop()
    sys.exit(0 if ratio >= arguments.threshold else MISSED)


if __name__ == "__main__":
    main()
