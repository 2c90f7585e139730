"""Score listings against a seed bank: the same tool as ``ecom-rag score``, under the name its users know.

    python rag_scripts/1_scorer.py listings.jsonl --seeds seeds.jsonl --model BAAI/bge-m3 --output scored.jsonl

Works from a checkout without installing the package, where its dependencies are installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from ecom_rag.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "score")
    main()
