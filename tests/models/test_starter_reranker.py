"""The reranker that is packaged with the project."""

from pathlib import Path

import numpy as np
import pytest

import ecom_rag
from ecom_rag import CrossEncoder
from ecom_rag.models.checkpoints.quantized import unpacked

pytestmark = pytest.mark.slow

FOLDER = Path(ecom_rag.__file__).parent / "starter_reranker"
ORDERS = [
    ("cordless drill 18 volt", "18-Volt Cordless Drill", "Drill Bit Set (18-Piece)", "Men's waterproof winter boots"),
    ("充电宝", "20000毫安移动电源充电宝", "充电宝数据线三合一", "厨房水龙头冷热单孔"),
    ("奶瓶", "新生儿宽口径玻璃奶瓶 防胀气", "奶瓶刷海绵清洁刷套装", "厨房水龙头冷热单孔"),
]


@pytest.fixture
def starter(tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path))
    return CrossEncoder.from_pretrained("starter", precision="fp32")


@pytest.mark.parametrize(("query", *"abc"), ORDERS)
def test_it_tells_what_is_asked_for_from_what_only_holds_the_word(starter, query, a, b, c):
    best, held, unrelated = starter.score([(query, text) for text in (a, b, c)]).tolist()
    assert best > held + 1 > unrelated + 2


def test_it_is_small_and_transformers_reads_it_as_we_do(starter):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 25_000_000
    folder = unpacked(FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pairs = [(query, text) for query, *texts in ORDERS for text in texts]
    with torch.inference_mode():
        logits = model(**tokenizer(pairs, padding=True, return_tensors="pt")).logits[:, 0].numpy()
    np.testing.assert_allclose(starter.score(pairs), logits, atol=1e-4)
