"""What a weight of a sum may be: one rule for fusion, the hybrid mode, fitted files and merged checkpoints."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ecom_rag.errors import UsageError
from ecom_rag.values import shown

MOST = 1e6  # no sum of float32 scores overflows
LEAST = 1e-6  # of the largest: below it a sum of scores could vanish


def is_weight(value: Any) -> bool:
    """Whether something may weigh this much: a number from 0 to ``MOST``."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(0 <= value <= MOST)


def check_weights(weights: Mapping[str, Any], *, of: str) -> dict[str, float]:
    """The weights as floats, if a weighted mean can be formed with them.

    Args:
        weights: By what they are for.
        of: What they are, for the message: "fusion weights".

    Raises:
        UsageError: One that is no weight (see ``is_weight``), or none of at least ``LEAST``.
    """
    found = ", ".join(f"{name} {shown(weight)}" for name, weight in weights.items())
    if not all(map(is_weight, weights.values())) or max(weights.values(), default=0) < LEAST:
        expected = f"numbers of at least 0 and at most {MOST:g}, one of them above 0 (from {LEAST:g} on)"
        raise UsageError(f"{of} {found or 'of nothing'}; expected {expected}")
    return {name: float(weight) for name, weight in weights.items()}
