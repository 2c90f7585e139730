"""Calibration and decisions over files."""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike, path_of
from ecom_rag.decision.calibration import Calibration, calibrate
from ecom_rag.decision.deciding import Deciding
from ecom_rag.decision.policy import load_policy
from ecom_rag.decision.settings import Calibrate
from ecom_rag.errors import PolicyError, UsageError
from ecom_rag.files import digest, jobs, records
from ecom_rag.files.jobs import Job, Process, Summary
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import Record
from ecom_rag.files.results import EVIDENCE, check_result
from ecom_rag.models.spec import AnyEncoder
from ecom_rag.pipeline import Pipeline, Recall
from ecom_rag.pipeline.places import Asked, OfBank, OfFile, Place
from ecom_rag.pipeline.provenance import Provenance, read_beside, recall_of
from ecom_rag.retrieval.routes import ROUTES, outputs_of
from ecom_rag.text.analysis import Analyzer

_TRIED = 16  # listings that are recalled again, where nothing else says how they were


def decide_file(
    results: PathLike,
    output: PathLike,
    policy: PathLike,
    *,
    strict: bool = False,
    id_key: str = "id",
    campaigns: PathLike | None = None,
    flood_limit: int = 10,
    reviewed: PathLike | None = None,
    resume: bool = False,
    on_bad_line: str = "fail",
    progress: Progress | None = None,
) -> Summary:
    """Decide a file of results.

    Args:
        results: Path (``str`` or ``Path``) of what ``recall`` wrote, or ``-`` for standard input.
        output: Path, or ``-`` for standard output.
        policy: Path of the policy.
        strict: Refuse results of seeds that have changed since the policy was calibrated.
        id_key: Metadata key of the seeds' ids.
        campaigns: File that remembers the campaigns from one batch to the next; by default none.
        flood_limit: Automatic decisions in one campaign before a person must look.
        reviewed: Path of records with the labels that people gave.
        resume: Continue an interrupted run of the same settings.
        on_bad_line: What a bad input line does: ``fail``, or ``skip`` for a note of it beside the output.
        progress: Called with the stage, how much more is done, and the total where it is known.

    Returns:
        What was done; ``counts`` has the decisions by action, and the reviews by reason.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    started = time.monotonic()
    results, output = path_of(results, "results"), path_of(output, "output")
    jobs.check_files(results, None, output, on_bad_line=on_bad_line, top_k=None)
    jobs.check_not_read(output, [path_of(policy, "policy")])
    deciding = deciding_by(
        policy, strict=strict, id_key=id_key, campaigns=campaigns, flood_limit=flood_limit, reviewed=reviewed
    )
    made = read_beside(results)
    step = stage(progress, "deciding", jobs.line_count(results))

    job = Job(
        output,
        {"command": "decide", "ecom_rag": __version__, "results": results, "on_bad_line": on_bad_line}
        | {"made": made and made.as_json(), **deciding.settings},
        read=lambda report: records.read(results, on_bad_line=on_bad_line, check=check_result, report=report),
        start=lambda cache: _start(deciding, results, made, cache, step),
        accept=lambda summary: summary.notes.extend(deciding.end()),
        replay=deciding.replay,
    )
    with contextlib.closing(deciding):
        return jobs.run(job, started=started, resume=resume)


def deciding_by(
    policy: PathLike,
    *,
    strict: bool = False,
    id_key: str = "id",
    campaigns: PathLike | None = None,
    flood_limit: int = 10,
    reviewed: PathLike | None = None,
) -> Deciding:
    """What ``decide_file`` does to results, also for ``recall_file``.

    Args:
        policy: As there.
        strict: As there.
        id_key: As there.
        campaigns: As there.
        flood_limit: As there.
        reviewed: As there.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    looks = () if reviewed is None else list(records.read(path_of(reviewed, "reviewed")))
    return Deciding(
        load_policy(policy),
        strict=strict,
        id_key=id_key,
        campaigns=campaigns,
        flood_limit=flood_limit,
        reviewed=looks,
    )


def _start(
    deciding: Deciding, results: str, made: Provenance | None, cache: Path | None, step: Callable[[int], None]
) -> Process:
    deciding.begin_file(results, made, cache)

    def process(block: list[Record]) -> tuple[list[Record], Mapping[str, int]]:
        found = deciding.block(block)
        step(len(block))
        return found

    return process


def calibrate_file(
    results: PathLike,
    output: PathLike,
    asked: Calibrate,
    *,
    seeds: PathLike | None = None,
    bank: PathLike | None = None,
    model: AnyEncoder | None = None,
    analyzer: Analyzer | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Make a policy from a file of labelled results, and write it.

    Args:
        results: Path of what ``recall`` wrote for labelled listings, without a reranker.
        output: Path of the policy.
        asked: What is to be promised.
        seeds: Path of the seeds that were searched; ``None`` where ``bank`` is given.
        bank: Folder of the bank; ``None`` where ``seeds`` is given.
        model: The encoder; a bank brings its own.
        analyzer: How the texts of ``seeds`` become terms; a bank brings its own.
        progress: As in ``decide_file``.

    Returns:
        The policy, and what it was made of.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    results, output = path_of(results, "results"), path_of(output, "output")
    asked.check()
    if output == "-":
        raise UsageError("a policy is a file that is kept; give `output` a path instead of -")
    jobs.check_files(results, None, output, on_bad_line="fail", top_k=None)
    items = list(records.read(results, check=check_result))
    made = read_beside(results)
    settings = _settings(results, items, made)
    terms = analyzer or Analyzer()
    job = Asked("calibrate", results, output, settings, seeds, bank, model, None, terms, "fail")
    place: Place = (OfFile if job.bank is None else OfBank)(job)
    encoder = place.encoder() if outputs_of(place.routes) else None
    source = place.source(encoder, None, progress)
    pipeline = Pipeline(source, replace(settings, routes=place.routes).check(), encoder=encoder)
    _check_made(results, items, made, pipeline)
    described = {
        "file": Path(results).name,
        "sha256": digest.of_file(Path(results)),
        "records": len(items),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    found = calibrate(items, pipeline, asked, described=described, progress=progress)
    found.policy.save(output)
    return found


def _settings(results: str, items: list[Record], made: Provenance | None) -> Recall:
    """How results were recalled, as it is written beside them, or else as they show it.

    Raises:
        UsageError: They do not show it.
    """
    if made is not None:
        return recall_of(made)
    shown = {name for one in items for by_route in one.get(EVIDENCE) or () for name in by_route}
    if not shown:
        raise UsageError(
            f"{results}: nothing says which routes found its seeds; expected a file that recall wrote, with the file"
            " .about.json beside it"
        )
    if not shown <= set(ROUTES):
        raise UsageError(
            f"{results}: was reranked ({', '.join(sorted(shown - set(ROUTES)))}); recall without a reranker"
        )
    top_k = max(len(one["topk_seed"]) for one in items)
    return Recall(routes=tuple(name for name in ROUTES if name in shown), top_k=top_k, depth=max(top_k, Recall().depth))


def _check_made(results: str, items: list[Record], made: Provenance | None, pipeline: Pipeline) -> None:
    """Whether results are what these seeds give now.

    Raises:
        PolicyError: They are not.
    """
    if made is not None:
        with pipeline.view() as view:
            now = pipeline.provenance(view)
        if different := made.differences(now):
            raise PolicyError(f"{results}: was recalled with other settings ({'; '.join(different)}); recall it again")
        if (made.seeds, made.sequence) != (now.seeds, now.sequence):
            raise PolicyError(f"{results}: was recalled from other seeds, or before they changed; recall it again")
        return
    tried = items[:: max(len(items) // _TRIED, 1)][:_TRIED]
    again = pipeline.recall([{"text": one["text"], "metadata": {}} for one in tried])
    if any(one["topk_seed"] != other["topk_seed"] for one, other in zip(tried, again, strict=True)):
        raise PolicyError(
            f"{results}: is not what these seeds give for its listings with the default settings; recall it again, and"
            " keep the file .about.json that recall writes beside it"
        )
