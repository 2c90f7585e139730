"""Digests of what the commands write for a fixed sample, to hold a change of the structure to: nothing else may change.

``python tests/golden.py record FILE`` before, ``python tests/golden.py compare FILE`` after. The digests belong to one
machine and one set of libraries: they are made and compared there, and not kept in the repository.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

COMMANDS = {
    "score dense": "score listings.jsonl --seeds seeds.jsonl --model encoder --precision fp32 --output OUT.jsonl",
    "score starter": "score listings.jsonl --seeds seeds.jsonl --model starter --precision fp32 --output OUT.jsonl.gz",
    "score sparse": "score listings.jsonl --seeds seeds.jsonl --model m3 --mode sparse --precision fp32"
    " --output OUT.json",
    "score multivector": "score listings.jsonl --seeds seeds.jsonl --model m3 --mode multivector --precision fp32"
    " --output OUT.jsonl",
    "score hybrid": "score listings.jsonl --seeds seeds.jsonl --model m3 --mode hybrid --weights 1,0.3,1"
    " --precision fp32 --output OUT.jsonl",
    "score parquet": "score listings.jsonl --seeds seeds.jsonl --model encoder --precision fp32 --output OUT.parquet",
    "recall bm25": "recall listings.jsonl --seeds seeds.jsonl --output OUT.jsonl",
    "recall four": "recall listings.jsonl --seeds seeds.jsonl --model starter --precision fp32"
    " --routes bm25,dense,variant --output OUT.jsonl",
    "recall m3": "recall listings.jsonl --seeds seeds.jsonl --model m3 --precision fp32"
    " --routes bm25,dense,sparse,multivector --fusion rrf --top-k 5 --output OUT.jsonl",
    "recall filter": "recall listings.jsonl --seeds seeds.jsonl --routes bm25,variant --output OUT.jsonl"
    " --filter lang='\"en\"'",
    "recall rerank": "recall listings.jsonl --seeds seeds.jsonl --routes bm25,variant --rerank reranker"
    " --precision fp32 --depth 20 --blend 0.5 --output OUT.jsonl",
    "bank build": "bank build bank --seeds seeds.jsonl --model m3 --precision fp32 --routes"
    " bm25,dense,sparse,multivector,variant",
    "recall bank": "recall listings.jsonl --bank bank --precision fp32 --output OUT.jsonl",
    "recall bank filter": "recall listings.jsonl --bank bank --precision fp32 --routes bm25,dense --output OUT.jsonl"
    " --filter lang='\"zh\"'",
    "rerank": "rerank recalled.jsonl --model reranker --precision fp32 --normalize --top-k 5 --output OUT.jsonl",
    "mine bm25": "mine seeds.jsonl --route bm25 --negatives 3 --range 1-50 --output OUT.jsonl",
    "mine dense": "mine seeds.jsonl --model encoder --precision fp32 --range 1-50 --output OUT.jsonl",
    "teach": "teach mined.jsonl --model reranker --precision fp32 --output OUT.jsonl",
    "evaluate labels": "evaluate recalled.jsonl --labels --resamples 200",
    "evaluate two": "evaluate recalled.jsonl reranked.jsonl --labels --resamples 200",
    "help": "--help",
}
KEPT = {"recall four": "recalled.jsonl", "rerank": "reranked.jsonl", "mine bm25": "mined.jsonl"}


def digests(folder: Path) -> dict[str, str]:
    """Run all commands in a folder; of each, a digest of its exit, its standard output and its file."""
    from fuzzing import make_models

    make_models(folder)
    for name in ("seeds.jsonl", "listings.jsonl"):
        sample = resources.files("ecom_rag") / "sample_data" / name
        (folder / name).write_bytes(sample.read_bytes())
    found = {}
    for number, (name, line) in enumerate(COMMANDS.items()):
        words = [word.replace("OUT", f"out-{number}").replace("'", "") for word in line.split()]
        words = [word.replace("lang=", "lang = ") for word in words]
        done = subprocess.run([sys.executable, "-m", "ecom_rag", *words], cwd=folder, capture_output=True)
        if done.returncode:
            print(f"{name}: {done.stderr.decode()}", file=sys.stderr)
        whole = hashlib.sha256(str(done.returncode).encode() + done.stdout)
        for path in sorted(folder.glob(f"out-{number}.*")):
            content = path.read_bytes()
            whole.update(content)
            if name in KEPT:
                (folder / KEPT[name]).write_bytes(content)
        found[name] = whole.hexdigest()[:16]
    return found


def main() -> None:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["ECOM_RAG_CACHE"] = str(Path(place) / "cache")
        folder = Path(place) / "work"
        folder.mkdir()
        found = digests(folder)
    if asked.what == "record":
        asked.file.write_text(json.dumps(found, indent=1) + "\n")
        return
    before = json.loads(asked.file.read_text())
    changed = [name for name in {**before, **found} if before.get(name) != found.get(name)]
    print(f"{len(found)} commands, {len(changed)} changed: {', '.join(changed) or 'none'}")
    sys.exit(bool(changed))


if __name__ == "__main__":
    main()
