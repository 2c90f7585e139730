"""The demo: sample listings against a sample seed bank, with the packaged starter encoder.

All sample texts were written for this project. The class is a vote of the five nearest seeds, each weighing
``exp(similarity / 0.07)`` (Wu et al. 2018, arXiv:1805.01978), untuned.
"""

import math
import shutil
import unicodedata
from importlib import resources
from pathlib import Path

from ecom_rag import records
from ecom_rag.errors import UsageError
from ecom_rag.models import Encoder
from ecom_rag.pipeline import score_file
from ecom_rag.records import Record

_NEIGHBOURS = 5
_TEMPERATURE = 0.07
_SHOWN = 16


def run(folder: str, *, show_all: bool = False) -> None:
    """Write the sample files and their result into a folder and print a table.

    Args:
        folder: Created where it does not exist.
        show_all: Print every listing instead of some English ones.

    Raises:
        UsageError: The folder's place is taken by a file.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder with --folder")
    target.mkdir(parents=True, exist_ok=True)
    samples = resources.files("ecom_rag") / "sample_data"
    for name in ("seeds.jsonl", "listings.jsonl"):
        with resources.as_file(samples / name) as path:
            shutil.copyfile(path, target / name)
    result = target / "scored.jsonl"
    summary = score_file(
        str(target / "listings.jsonl"),
        str(target / "seeds.jsonl"),
        str(result),
        lambda: Encoder.from_pretrained("starter"),
        top_k=_NEIGHBOURS,
    )
    scored = list(records.read(str(result)))
    print(
        f"{summary.records} listings against {summary.seeds} judged seeds, starter encoder, {summary.seconds:.1f} s\n"
    )
    english = [record for record in scored if record["metadata"]["lang"] == "en"]
    for record in scored if show_all else english[:: max(1, len(english) // _SHOWN)]:
        _print_listing(record)
    _print_totals(scored)
    command = f"ecom-rag score {target}/listings.jsonl --seeds {target}/seeds.jsonl"
    print(
        f"\nResult: {result} (one JSON record a line: text, metadata, topk_sim, topk_seed, topk_metadata)\n"
        f"The starter reads English only: on Chinese it guesses (--all shows it). With BGE checkpoints, in both:\n"
        f"  {command} --model BAAI/bge-m3 --mode hybrid --output {target}/hybrid.jsonl\n"
        f"  ecom-rag rerank {target}/hybrid.jsonl --model BAAI/bge-reranker-v2-m3 --output {target}/reranked.jsonl"
    )


def vote(record: Record) -> str:
    """The label whose seeds among a result's weigh most; the nearer one of equals."""
    sums: dict[str, float] = {}
    for similarity, metadata in zip(record["topk_sim"], record["topk_metadata"], strict=True):
        sums[metadata["label"]] = sums.get(metadata["label"], 0.0) + math.exp(similarity / _TEMPERATURE)
    return max(sums, key=lambda label: sums[label])  # the first of equals, and the nearest came in first


def _print_listing(record: Record) -> None:
    voted, true = vote(record), record["metadata"]["label"]
    mark = "ok " if voted == true else "MISS"
    print(f"{mark:4} {_fit(record['text'], 84)}  -> {voted}" + ("" if voted == true else f" (true: {true})"))
    for rank in range(2):
        seed = _fit(record["topk_seed"][rank], 70)
        print(f"     {record['topk_sim'][rank]:6.3f}  {seed}  {record['topk_metadata'][rank]['label']}")
    print()


def _print_totals(scored: list[Record]) -> None:
    print("class right, by language and kind of listing:")
    for language in ("en", "zh"):
        cells = []
        for note in ("plain", "near_miss", "evasive"):
            chosen = [r for r in scored if (r["metadata"]["lang"], r["metadata"]["note"]) == (language, note)]
            right = sum(vote(r) == r["metadata"]["label"] for r in chosen)
            cells.append(f"{note} {right}/{len(chosen)}")
        print(f"  {language}: " + ", ".join(cells))


def _fit(text: str, width: int) -> str:
    """Text cut or padded to terminal columns; Chinese characters take two, joiners and accents none."""
    out, used = "", 0
    for character in " ".join(text.split()):
        if unicodedata.category(character) in ("Cf", "Mn", "Cc"):
            continue
        columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used + columns > width - 1:
            return out + "…" + " " * (width - 1 - used)
        out, used = out + character, used + columns
    return out + " " * (width - used)
