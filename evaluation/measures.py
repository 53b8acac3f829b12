"""The measures, as trec_eval computes them, through ir_measures (MacAvaney et al., ECIR 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.collection import Qrels

NAMES = ("ndcg@10", "recall@100", "mrr@10")
DEPTH = 10
"""How deep nDCG and MRR look."""

RECALL_DEPTH = 100

Values = dict[str, dict[str, float]]
"""By measure, then by query."""


def measured(
    qrels: Qrels, *, top: Mapping[str, Sequence[str]], deep: Mapping[str, Sequence[str]] | None = None
) -> Values:
    """
    Measure rankings.

    nDCG@10 takes the judgement itself as its gain (Järvelin & Kekäläinen, TOIS 2002), MRR@10 the reciprocal rank of
    the first relevant document, recall@100 the share of the relevant documents.

    :param qrels: Every judged query counts; one without a ranking counts 0.
    :param top: Document ids by query, best first, for nDCG@10 and MRR@10.
    :param deep: The same for recall@100; `None` means `top`.
    :returns: Each measure's value for each judged query, 0 to 1.
    """
    from ir_measures import RR, R, iter_calc, nDCG

    names = {nDCG @ DEPTH: "ndcg@10", RR @ DEPTH: "mrr@10", R @ RECALL_DEPTH: "recall@100"}
    values: Values = {name: dict.fromkeys(qrels, 0.0) for name in NAMES}
    for run, measures in ((top, [nDCG @ DEPTH, RR @ DEPTH]), (top if deep is None else deep, [R @ RECALL_DEPTH])):
        for metric in iter_calc(measures, qrels, _scored(run)):
            if metric.query_id in qrels:
                values[names[metric.measure]][metric.query_id] = metric.value
    return values


def mean(values: Mapping[str, float]) -> float:
    """The mean over queries."""
    return sum(values.values()) / len(values)


def _scored(run: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """trec_eval orders by score and breaks ties by id: so the rank is the score."""
    return {query: {key: float(-rank) for rank, key in enumerate(ranking)} for query, ranking in run.items()}
