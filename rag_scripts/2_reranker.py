"""Rerank results of multi-route recall: the same tool as ``ecom-rag rerank``, under the name its users know.

    python rag_scripts/2_reranker.py scored.jsonl --model BAAI/bge-reranker-v2-m3 --output reranked.jsonl

Works from a checkout without installing the package, where its dependencies are installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from ecom_rag.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "rerank")
    main()
