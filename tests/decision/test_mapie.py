"""Our p-values beside those of MAPIE, whose controller knows one threshold for all classes and no campaigns."""

import numpy as np
import pytest
from scipy.stats import binom

from ecom_rag.decision.guarantee import campaigns_needed, p_value

pytestmark = pytest.mark.reference

methods = pytest.importorskip("mapie.risk_control.methods", reason="MAPIE is missing; pip install -e '.[dev]'")

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
CAMPAIGNS = (1, 2, 10, 22, 45, 59, 100, 213, 1000, 5000)
ROUNDING = 1 + 1e-12  # without an error MAPIE's Hoeffding bound is the tail itself, computed by another formula


def of_mapie(errors, campaigns, rate, *, binary):
    """Hoeffding-Bentkus p-values of so many errors each."""
    return methods.compute_hoeffding_bentkus_p_value(errors / campaigns, campaigns, rate, binary=binary)[:, 0]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("campaigns", CAMPAIGNS)
def test_p_values_are_the_exact_tail_and_never_larger_than_those_of_mapie(campaigns, rate):
    errors = np.unique(np.linspace(0, campaigns, min(campaigns + 1, 120)).astype(np.int64))
    ours = np.array([p_value(int(one), campaigns, rate) for one in errors])
    assert np.array_equal(ours, binom.cdf(errors, campaigns, rate))
    for binary in (False, True):  # any risk of 0 to 1, and risks of 0 or 1, for which its bound is tighter
        with np.errstate(divide="ignore", invalid="ignore"):
            theirs = of_mapie(errors, campaigns, rate, binary=binary)
        assert (ours <= theirs * ROUNDING).all()


@pytest.mark.parametrize(("errors", "ours", "for_any_risk"), [(0, 45, 45), (1, 77, 96), (5, 184, 218)])
def test_a_promise_of_95_percent_takes_no_more_campaigns_than_with_mapie(errors, ours, for_any_risk):
    def needed(binary):
        counts = range(errors + 1, 400)
        found = (of_mapie(np.array([errors]), count, 0.05, binary=binary)[0] for count in counts)
        return next(count for count, p in zip(counts, found, strict=True) if p <= 0.1 * ROUNDING)

    assert campaigns_needed(errors, 0.05, 0.1) == needed(True) == ours
    assert needed(False) == for_any_risk
