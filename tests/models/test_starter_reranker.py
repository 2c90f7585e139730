"""The reranker that is packaged with the project."""

from pathlib import Path

import pytest

import ecom_rag
from ecom_rag import CrossEncoder

pytestmark = pytest.mark.slow


def test_the_packaged_starter_reranker(tmp_path, monkeypatch):
    """It is small, needs no hub, and tells what is asked for from what only looks like it."""
    folder = Path(ecom_rag.__file__).parent / "starter_reranker"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path))
    starter = CrossEncoder.from_pretrained("starter")
    pairs = [
        ("cordless drill 18 volt", text)
        for text in (
            "18-Volt Cordless Drill",
            "18-Volt Cordless Circular Saw",
            "1/2 in. Corded Drill",
            "Drill Bit Set (18-Piece)",
            "Kitchen Faucet with Pull-Down Sprayer",
        )
    ]
    scores = starter.score(pairs)
    assert scores.argmax() == 0 and scores[0] > scores[1:].max() + 1
