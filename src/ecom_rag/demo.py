"""The demo: sample listings against a sample seed bank, by multi-route recall and the packaged starter models.

All sample texts were written for this project. A listing gets the label for which its five best seeds vote, the first
with weight 1, the second with 1/2, and so on; nothing is tuned.
"""

import unicodedata
from importlib import resources
from pathlib import Path
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.files import disk, publish, records
from ecom_rag.files.identity import label_of
from ecom_rag.files.records import Record
from ecom_rag.models import CrossEncoder
from ecom_rag.pipeline import Recall, recall_file
from ecom_rag.pipeline.reranking import rerank
from ecom_rag.text.printing import printable

_SAMPLES = ("seeds.jsonl", "listings.jsonl")
_RESULTS = ("recalled.jsonl", "reranked.jsonl")
_NEIGHBOURS = 5  # that vote
_CANDIDATES = 20  # that the reranker sees
_BLEND = 0.5  # its share in the order
_ROUTES = ("bm25", "dense", "variant")
_LANGUAGES = ("en", "zh")
_SHOWN = 6  # of each language
_SEEDS = 2  # shown of a listing
_EVASIVE = 4
_LISTING, _SEED = 68, 46  # terminal columns of their texts


def run(folder: str, *, show_all: bool = False) -> None:
    """Write the sample files and their result into a folder and print a table.

    Args:
        folder: Created where it does not exist.
        show_all: Print every listing instead of some.

    Raises:
        UsageError: The folder holds something that is not the demo's.
    """
    target = Path(folder)
    _check_folder(target)
    target.mkdir(parents=True, exist_ok=True)
    for name in _SAMPLES:
        if not (target / name).exists():
            with publish.writing(target / name) as sink:
                sink.write(_sample(name))
    seeds, listings, result, reordered = (target / name for name in (*_SAMPLES, *_RESULTS))
    summary = recall_file(listings, result, Recall(routes=_ROUTES, top_k=_CANDIDATES), seeds=seeds, model="starter")
    scored = list(records.read(str(result)))
    print(
        f"{summary.records} listings against {summary.seeds} judged seeds by the routes {', '.join(_ROUTES)}, starter"
        f" encoder, {summary.seconds:.1f} s\n"
    )
    reranked = rerank(_in("en", scored), CrossEncoder.from_pretrained("starter"), blend=_BLEND)
    with publish.writing(reordered) as sink:
        sink.writelines(map(records.dumps, reranked))
    for record in scored if show_all else [record for lang in _LANGUAGES for record in _some(_in(lang, scored))]:
        _print_listing(record)
    _print_evasive(scored)
    print("listings that get the right label, by language and kind:")
    for lang in _LANGUAGES:
        print(f"  {lang}: {_totals(_in(lang, scored))}")
    print(f"  en, with the starter reranker (--blend {_BLEND}): {_totals(reranked)}")
    shown = printable(target)
    command = f"ecom-rag recall {shown}/listings.jsonl --seeds {shown}/seeds.jsonl"
    print(
        f"\nResults: {printable(result)}, and for the English listings {printable(reordered)};"
        " one JSON record per line: text, metadata, topk_sim, topk_seed, topk_metadata, topk_evidence\n"
        "The starter models are small, and the starter reranker knows English only. BGE models know both languages:\n"
        f"  {command} --model BAAI/bge-m3 --routes bm25,dense,sparse,variant --output {shown}/m3.jsonl\n"
        f"  ecom-rag rerank {shown}/m3.jsonl --model BAAI/bge-reranker-v2-m3 --output {shown}/m3_reranked.jsonl"
    )


def _in(language: str, found: list[Record]) -> list[Record]:
    return [record for record in found if record["metadata"]["lang"] == language]


def _some(found: list[Record]) -> list[Record]:
    """A few, from all over."""
    return found[:: max(1, len(found) // _SHOWN)][:_SHOWN]


def _check_folder(target: Path) -> None:
    """Raise ``UsageError`` unless the folder is new, empty, or one that the demo made: it begins with its samples."""
    if disk.anything_at(target) and not target.is_dir():
        raise UsageError(f"{target}: is not a folder; name one with `folder`")
    there = [name for name in (*_SAMPLES, *_RESULTS) if disk.anything_at(target / name)]
    own = [name for name in _SAMPLES if _is_sample(target / name, name)]
    made_here = _SAMPLES[0] in own and (len(own) == len(_SAMPLES) or there == own)
    if made_here and not any((target / name).is_symlink() for name in there):
        return
    if target.exists() and any(target.iterdir()):
        raise UsageError(
            f"{target}: holds files that the demo did not make, or made in another version; name a new"
            " folder with `folder`"
        )


def _is_sample(path: Path, name: str) -> bool:
    return path.is_file() and path.read_bytes() == _sample(name)


def _sample(name: str) -> bytes:
    return (resources.files("ecom_rag") / "sample_data" / name).read_bytes()


def vote(record: Record) -> str:
    """The label whose seeds among the best of a result weigh most; the nearer one of equals."""
    sums: dict[str, float] = {}
    for rank, metadata in enumerate(record["topk_metadata"][:_NEIGHBOURS], start=1):
        label = _label(metadata)
        sums[label] = sums.get(label, 0.0) + 1 / rank
    return max(sums, key=lambda label: sums[label], default="none")  # the first of equals, and the best came in first


def _label(metadata: dict[str, Any]) -> str:
    return label_of(metadata, "label") or "none"


def _print_listing(record: Record) -> None:
    voted, true = vote(record), _label(record["metadata"])
    mark = "ok " if voted == true else "MISS"
    print(f"{mark:4} {_fit(record['text'], _LISTING)}  -> {voted}" + ("" if voted == true else f" (true: {true})"))
    for rank in range(min(_SEEDS, len(record["topk_seed"]))):
        seed = _fit(record["topk_seed"][rank], _SEED)
        ranks = ", ".join(f"{route} #{own['rank']}" for route, own in record["topk_evidence"][rank].items())
        print(f"     {record['topk_sim'][rank]:6.3f}  {seed}  {_label(record['topk_metadata'][rank])} ({ranks})")
    print()


def _print_evasive(scored: list[Record]) -> None:
    """Disguised listings that get the right label, those first that the variant route sees through."""
    print("evasive spellings that get the right label, and the routes that found their seeds:\n")
    right = [r for r in scored if r["metadata"]["note"] == "evasive" and vote(r) == _label(r["metadata"])]
    for record in sorted(right, key=lambda record: not _seen_through(record))[:_EVASIVE]:
        _print_listing(record)


def _seen_through(record: Record) -> bool:
    """Whether the variant route found one of the seeds that are shown."""
    return any("variant" in own for own in record["topk_evidence"][:_SEEDS])


def _totals(found: list[Record]) -> str:
    """How many listings of each kind got their class."""
    cells = []
    for note in ("plain", "near_miss", "evasive"):
        chosen = [record for record in found if record["metadata"]["note"] == note]
        cells.append(f"{note} {sum(vote(r) == _label(r['metadata']) for r in chosen)}/{len(chosen)}")
    return ", ".join(cells)


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
