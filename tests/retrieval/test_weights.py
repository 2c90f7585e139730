"""What a weight may be, and that no result holds NaN, infinity or zeros made of overflow."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_rag.errors import EmbeddingError, UsageError
from ecom_rag.files.results import results_of
from ecom_rag.merging.methods import Mix, check_mix
from ecom_rag.pipeline import Recall
from ecom_rag.retrieval import Ranking, hybrid, learned_fusion
from ecom_rag.retrieval.fusion import METHODS, fuse
from ecom_rag.retrieval.weights import LEAST, MOST, check_weights, is_weight

NUMBERS = st.floats() | st.integers() | st.sampled_from([1e308, 1e-320, MOST, LEAST, 10**400, True, None, "1", []])


@given(NUMBERS)
def test_a_weight_is_a_number_from_0_to_a_million(value):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    assert is_weight(value) is (number and 0 <= value <= 1e6)


@given(st.dictionaries(st.sampled_from(["bm25", "dense", "sparse"]), NUMBERS, min_size=1), st.sampled_from(METHODS))
def test_a_sum_of_scores_is_finite_or_its_weights_are_refused(weights, method):
    routes = {name: Ranking(np.array([[0, 1]]), np.array([[3e38, 1e-38]], np.float32)) for name in weights}
    right = all(map(is_weight, weights.values())) and max(weights.values()) >= LEAST
    try:
        fused = fuse(routes, k=2, method=method, weights=weights)
    except UsageError as error:
        assert not right and "fusion weights" in str(error)
    else:
        assert right and np.isfinite(fused.scores).all() and fused.scores[0, 0] > 0


@pytest.mark.parametrize("bad", [1e308, -1.0, float("nan"), float("inf"), 10**400])
def test_one_rule_for_every_place_that_takes_weights(bad, tmp_path):
    fitted = tmp_path / "fitted.json"
    fitted.write_text(json.dumps({"format": 1, "method": "rrf", "weights": {"bm25": bad, "dense": 1}}))
    for refuses in (
        lambda: check_weights({"a": bad}, of="weights"),
        lambda: hybrid.weights_of((1.0, bad, 1.0)),
        lambda: Recall(weights={"bm25": bad}).check(),
        lambda: learned_fusion.load_fusion(fitted),
        lambda: check_mix(Mix(((1.0, bad),)), 2, has_base=False),
    ):
        with pytest.raises(UsageError, match=r"expected numbers of at least 0|is not JSON"):
            refuses()


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_no_result_holds_a_score_that_is_no_number(score):
    with pytest.raises(EmbeddingError, match="is NaN or infinity"):
        ranking = Ranking(np.array([[0]]), np.array([[score]], np.float32))
        results_of([{"text": "q", "metadata": {}}], ranking, {0: {"text": "s", "metadata": {}}})
