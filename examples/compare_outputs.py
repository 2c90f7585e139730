"""Compare two texts by each of bge-m3's three outputs, all from one pass, and by their weighted mean.

Run: python examples/compare_outputs.py ./bge-m3
"""

import sys

import numpy as np

from ecom_rag import Encoder
from ecom_rag.retrieval import pair_scores

texts = ["加微信私下转账便宜", "Message me privately and transfer the money directly"]
both = Encoder.from_pretrained(sys.argv[1]).encode(texts, outputs=("dense", "sparse", "multivector"))
scores = pair_scores(both, both, np.array([[0, 1]]), weights=(1.0, 0.3, 1.0))  # rows of the query and the document
for name, values in scores.items():
    print(f"{name:12} {values[0]:.4f}")
