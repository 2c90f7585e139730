"""Fusion weights that were fitted on judged queries: a small JSON file, and how it is applied.

``judging.fit_fusion`` fits them; here they are only kept and used, so that a search needs nothing of the evaluation.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ecom_rag.arguments import PathLike, path_of
from ecom_rag.errors import UsageError
from ecom_rag.files import publish, readers
from ecom_rag.retrieval.fusion import METHODS, RRF_CONSTANT, check_constant, fuse
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.retrieval.weights import check_weights

_FORMAT = 1


@dataclass(frozen=True)
class LearnedFusion:
    """A fusion with fitted weights, and what speaks for it.

    Args:
        method: ``rrf``, ``minmax``, ``zscore`` or ``dbsf``.
        weights: One for each route.
        rrf_constant: Of ``rrf``.
        accepted: False where the fit was refused; the weights are then those of the baseline.
        baseline: What the fit was compared with, e.g. ``rrf`` or ``only dense``.
        measure: What was fitted, e.g. ``nDCG@10``.
        gain: Out-of-fold mean gain over the baseline.
        gain_low: Lower end of its 95 % bootstrap interval.
        gain_high: Upper end.
        fitted_on: What it was fitted on: file names, numbers of queries and folds, the seed.
        versions: Of ecom_rag and numpy.
    """

    method: str
    weights: Mapping[str, float]
    rrf_constant: float = RRF_CONSTANT
    accepted: bool = True
    baseline: str = ""
    measure: str = ""
    gain: float = 0.0
    gain_low: float = 0.0
    gain_high: float = 0.0
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def check_routes(self, routes: Iterable[str]) -> None:
        """Raise ``UsageError`` unless the fusion was fitted for just these routes."""
        found = list(routes)
        if set(found) != set(self.weights):
            raise UsageError(
                f"the fusion was fitted for the routes {', '.join(self.weights)}, asked for are"
                f" {', '.join(found)}; search with the same routes or fit anew"
            )

    def fuse(self, routes: Mapping[str, Ranking], *, k: int) -> Ranking:
        """The k best of what the routes found, by the fitted weights; see ``fusion.fuse``.

        Raises:
            UsageError: Other routes than it was fitted for.
        """
        self.check_routes(routes)
        return fuse(routes, k=k, method=self.method, weights=self.weights, rrf_constant=self.rrf_constant)

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        check_weights(self.weights, of=f"{path}: fusion weights")
        text = json.dumps({"format": _FORMAT, **asdict(self)}, ensure_ascii=False, indent=1, allow_nan=False)
        with publish.writing(path) as sink:
            sink.write(f"{text}\n".encode())


def load_fusion(path: PathLike) -> LearnedFusion:
    """Read what ``LearnedFusion.save`` wrote.

    Args:
        path: The JSON file (``str`` or ``Path``).

    Raises:
        UsageError: No such file, or not such a file.
    """
    path = path_of(path, "path")
    content = readers.read_json(path, remedy="fit a fusion with `fit_fusion`")
    known = {one.name for one in fields(LearnedFusion)}
    right = isinstance(content, dict) and content.pop("format", None) == _FORMAT
    if not right or not {"method", "weights"} <= set(content):
        raise UsageError(f"{path}: not a fitted fusion of format {_FORMAT}; expected a file of `fit_fusion`")
    if set(content) - known:
        raise UsageError(f"{path}: unknown keys {', '.join(sorted(set(content) - known))}; was it edited by hand?")
    weights, constant = content["weights"], content.get("rrf_constant", RRF_CONSTANT)
    if content["method"] not in METHODS:
        raise UsageError(f"{path}: method {content['method']!r} is unknown; expected one of {', '.join(METHODS)}")
    if not isinstance(weights, dict):
        raise UsageError(f"{path}: the weights are {weights!r:.80}; expected an object of one number for each route")
    check_weights(weights, of=f"{path}: fusion weights")
    check_constant(constant)
    return LearnedFusion(**content)
