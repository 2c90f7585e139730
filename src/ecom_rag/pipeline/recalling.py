"""Multi-route recall over files: settings from TOML, seeds from a file or a bank, results that can be resumed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ecom_rag import arguments
from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike, path_of, path_or_none
from ecom_rag.errors import UsageError
from ecom_rag.files import jobs, readers, records
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import ReadReport, Record
from ecom_rag.files.values import shown
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.pipeline.files import (
    BLOCK_CHARS,
    OwnIds,
    Summary,
    bank_notes,
    check_files,
    count,
    digest,
    encode_seeds,
    read_seeds,
    run_blocks,
    summary_of,
)
from ecom_rag.pipeline.recall import Pipeline, Recall
from ecom_rag.retrieval.routes import ENCODED_ROUTES
from ecom_rag.seeds.bank import SeedBank
from ecom_rag.seeds.memory import Seeds, check_built, check_routes
from ecom_rag.text.analysis import Analyzer

_MODELS = ("model", "rerank")


def read_settings(path: PathLike | None, options: Mapping[str, Any]) -> tuple[Recall, dict[str, str]]:
    """Settings of a TOML file, with those of ``options`` that are not ``None`` on top.

    Args:
        path: Of the file; ``None`` for none. Its keys are those of ``Recall``, ``model`` and ``rerank``.
        options: By the same names.

    Returns:
        The settings, and ``model`` and ``rerank`` where they are given.

    Raises:
        UsageError: No such file, no TOML, an unknown key, or a value of the wrong kind.
    """
    found: dict[str, Any] = {} if path is None else read_toml(path_of(path, "path"))
    found.update({key: value for key, value in options.items() if value is not None})
    models = {key: str(found.pop(key)) for key in _MODELS if key in found}
    if unknown := set(found) - {field.name for field in fields(Recall)}:
        raise UsageError(f"the settings {', '.join(map(str, unknown))} are unknown; expected those of Recall")
    return replace(Recall(), **found).check(), models


def read_toml(path: str) -> dict[str, Any]:
    """The settings of a TOML file, each of the right kind; raises as ``read_settings``."""
    found = readers.read_toml(path, remedy="check the path of --config, and see docs/recall.md for an example")
    kinds: dict[str, tuple[type, ...]] = {
        "routes": (list,),
        "fusion": (str,),
        "weights": (dict,),
        "rrf_constant": (int, float),
        "depth": (int,),
        "top_k": (int,),
        "filter": (str, dict),
        "exact_multivector": (bool,),
        "normalize": (bool,),
        "blend": (int, float),
        "exclude_self": (bool,),
        "id_key": (str,),
        "model": (str,),
        "rerank": (str,),
    }
    assert set(kinds) == {field.name for field in fields(Recall)} | set(_MODELS)
    for key, value in found.items():
        if key not in kinds:
            near = get_close_matches(key, kinds, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected some of {', '.join(kinds)}"
            raise UsageError(f"{path}: key {key!r} is unknown; {hint}")
        if not isinstance(value, kinds[key]) or (isinstance(value, bool) and bool not in kinds[key]):
            raise UsageError(
                f"{path}: {key} is {value!r}; expected {' or '.join(kind.__name__ for kind in kinds[key])}"
            )
    return found


def recall_file(
    queries: PathLike,
    output: PathLike,
    settings: Recall,
    *,
    seeds: PathLike | None = None,
    bank: PathLike | None = None,
    load_encoder: Callable[[], Encoder] | None = None,
    load_cross_encoder: Callable[[], CrossEncoder] | None = None,
    placement: Mapping[str, Any] | None = None,
    analyzer: Analyzer | None = None,
    resume: bool = False,
    on_bad_line: str = "fail",
    progress: Progress | None = None,
) -> Summary:
    """Search a file of queries against a file of seeds or a bank.

    Args:
        queries: Path (``str`` or ``Path``), or ``-`` for standard input.
        output: Path, or ``-`` for standard output; appears under its name only when complete.
        settings: See ``Recall``.
        seeds: Path of seed records; or
        bank: Folder of a bank.
        load_encoder: Called where a route needs it; a bank brings its own where there is none.
        load_cross_encoder: Called where candidates are to be reranked.
        placement: Runtime, precision, device and batch tokens of a bank's own encoder, and its ``path`` where it lies
            elsewhere than when the bank was built.
        analyzer: How the texts of ``seeds`` become terms; a bank brings its own.
        resume: Continue an interrupted run.
        on_bad_line: ``fail`` or ``skip``.
        progress: See ``Progress``.

    Returns:
        What was done.

    Raises:
        EcomRagError: Anything the user can mend; nothing half-written is left under ``output``.
    """
    started = time.monotonic()
    queries, output = path_of(queries, "queries"), path_of(output, "output")
    seeds, bank = path_or_none(seeds, "seeds"), path_or_none(bank, "bank")
    if not isinstance(settings, Recall):
        raise UsageError(f"settings is {shown(settings)}; expected Recall(...)")
    arguments.function(load_encoder, "load_encoder", "an Encoder", optional=True)
    arguments.function(load_cross_encoder, "load_cross_encoder", "a CrossEncoder", optional=True)
    if (seeds is None) == (bank is None):
        raise UsageError("one place to search is needed; give --seeds FILE or --bank DIR")
    check_files(queries, seeds, output, on_bad_line=on_bad_line, top_k=settings.top_k)
    settings.check()
    report, seed_report = ReadReport(), ReadReport()
    opened: SeedBank | list[Record]
    if bank is not None:
        opened = SeedBank.open(bank)
        routes = settings.routes or opened.routes
        check_built(routes, opened.routes)
        state: Any = {"bank": str(Path(bank).resolve()), "sequence": opened.sequence}
    else:
        opened = read_seeds(str(seeds), on_bad_line=on_bad_line, report=seed_report)
        routes = settings.routes_of_file(encoder=load_encoder is not None)
        state = digest(opened)
    settings = replace(settings, routes=tuple(routes)).check()
    settings.check_use(routes, reranker=load_cross_encoder is not None)
    encoder = load_encoder() if load_encoder and any(route in ENCODED_ROUTES for route in routes) else None
    if isinstance(opened, SeedBank) and opened.model is not None and any(route in ENCODED_ROUTES for route in routes):
        opened.use(encoder or opened.model.load(**(placement or {})))
        encoder = opened.encoder
    outputs = check_routes(routes, encoder)
    seen = OwnIds(settings.id_key_of(opened))
    cross_encoder = load_cross_encoder() if load_cross_encoder else None
    fitted = settings.fitted()
    job = {
        "command": "recall",
        "ecom_rag": __version__,
        "queries": queries,
        "seeds": state,
        "settings": asdict(settings) | ({} if fitted is None else {"fusion": asdict(fitted)}),
        "model": None if encoder is None else [encoder.fingerprint, encoder.settings],
        "rerank": None if cross_encoder is None else [cross_encoder.fingerprint, cross_encoder.settings],
        "analyzer": (analyzer or Analyzer()).fingerprint(),
        "on_bad_line": on_bad_line,
    }
    notes: list[str] = []
    with jobs.ResumableOutput(output, settings=job, resume=resume) as sink:
        if not sink.already_complete:
            sink.write_rejections(seed_report.rejections)
            searched: SeedBank | Seeds
            if isinstance(opened, SeedBank):
                searched = opened
            else:
                embeddings = None
                if outputs:
                    assert encoder is not None
                    embeddings = encode_seeds(encoder, opened, outputs, sink.cache, progress)
                searched = Seeds(opened, routes=routes, encoder=encoder, embeddings=embeddings, analyzer=analyzer)
            pipeline = Pipeline(searched, settings, encoder=encoder, cross_encoder=cross_encoder)
            notes = list(pipeline.notes)
            step = stage(progress, "recalling", count(queries))
            stream = records.read(queries, on_bad_line=on_bad_line, report=report)
            chars = BLOCK_CHARS if cross_encoder is None else BLOCK_CHARS // settings.depth
            found = 0

            def work(block: list[Record]) -> list[Record]:
                nonlocal found
                results = pipeline.recall(block, progress=step)
                seen.look(results)
                found += sum(bool(result["topk_seed"]) for result in results)
                return results

            run_blocks(sink, stream, report, work, max_size=chars, size=lambda record: len(record["text"]))
            searched_now = sink.records - sink.resumed_records
            if searched_now and not found and not notes:
                notes.append(f"none of {searched_now} records found a seed; look at the texts and the routes")
        sink.finish()
    summary = summary_of(sink, report, seed_report, started)
    summary.seeds = len(opened)
    summary.notes = notes + summary.notes
    if not isinstance(opened, SeedBank):
        summary.notes += bank_notes(opened, settings.top_k)
    summary.notes += seen.notes()
    return summary
