"""How documents are ranked: the parameters of BM25 and of the fusion with similarity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from database.errors import ConfigurationError

_RANGES = {"k1": (0.0, 10.0), "b": (0.0, 1.0), "keyword_weight": (0.0, 1.0), "candidates": (1, 1000)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """
    Parameters of a search; the defaults were chosen on the training questions of SciFact.

    :param k1: How much a word counts more when it stands in a document more often; 0 to 10. 1.2: Robertson & Zaragoza, 2009.
    :param b: How much longer documents count less; 0 to 1.
    :param keyword_weight: Share of the keyword score in a hybrid score; 0 to 1.
    :param candidates: How many documents each leg of a hybrid search proposes, at least; 1 to 1000.
    """

    k1: float = 1.2
    b: float = 0.75
    keyword_weight: float = 0.5
    candidates: int = 50

    @classmethod
    def of(cls, given: Mapping[str, float] | None) -> Ranking:
        """
        The parameters with some of them given.

        :raises ConfigurationError: If one is unknown, no number, or out of its range.
        """
        known = {field.name for field in fields(cls)}
        for name, value in (given or {}).items():
            if name not in known:
                raise ConfigurationError(f"ranking has {', '.join(sorted(known))}, but was given {name}.")
            low, high = _RANGES[name]
            is_number = isinstance(value, int if name == "candidates" else int | float) and not isinstance(value, bool)
            if not is_number or not low <= value <= high:
                raise ConfigurationError(f"ranking's {name} must be a number from {low} to {high}, but is {value!r}.")
        return cls(**dict(given or {}))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, float]:
        """As `of` takes it."""
        return asdict(self)
