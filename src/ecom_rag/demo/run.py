"""The demo from end to end: recall, calibrate, decide, write, print."""

import time
from pathlib import Path

from ecom_rag.decision import Calibrate, Calibration, Deciding, calibrate
from ecom_rag.demo.folder import RESULTS, SAMPLES, check_folder, write_samples
from ecom_rag.demo.outcome import Outcome
from ecom_rag.demo.page import as_html
from ecom_rag.demo.terminal import show
from ecom_rag.files import digest, publish, records
from ecom_rag.files.records import Record
from ecom_rag.models.deobfuscation import Deobfuscator
from ecom_rag.models.spec import ModelSpec
from ecom_rag.pipeline import Pipeline, Recall
from ecom_rag.pipeline.places import Asked, OfFile
from ecom_rag.pipeline.provenance import write_beside
from ecom_rag.text.analysis import Analyzer

ROUTES = ("bm25", "dense", "variant")
ENCODER = ModelSpec("starter", {"deobfuscate": True})
ANALYZER = Analyzer(reader=Deobfuscator())
RECALL = Recall(routes=ROUTES, fusion="weighted", top_k=50)
PROMISE = Calibrate(precision=0.9, delta=0.1, pool=True, innocent=("innocent",), false_positive_rate=0.05)


def run(folder: str, *, show_all: bool = False) -> None:
    """Decide the sample listings, write everything into a folder and print what a reader should see.

    Args:
        folder: Created where it does not exist.
        show_all: Print every listing instead of some.

    Raises:
        UsageError: The folder holds something that is not the demo's.
    """
    started = time.monotonic()
    target = Path(folder)
    check_folder(target)
    write_samples(target)
    _, bank, labelled, listings = (target / name for name in SAMPLES)
    recalled, _, policy, decided, page = (target / name for name in RESULTS)
    pipeline = _pipeline(bank, listings, recalled)
    found = calibrated(labelled, pipeline)
    results = pipeline.recall(records.read(str(listings)))
    outcome = Outcome(_decided(results, found, pipeline), found, pipeline.routes, _count(pipeline))
    _write(recalled, results)
    with pipeline.view() as view:
        write_beside(str(recalled), pipeline.provenance(view))
    found.policy.save(policy)
    _write(decided, outcome.decided)
    with publish.writing(page) as sink:
        sink.write(as_html(outcome).encode())
    show(outcome, target, seconds=time.monotonic() - started, show_all=show_all)


def _pipeline(bank: Path, listings: Path, recalled: Path) -> Pipeline:
    """As ``ecom-rag recall`` has it over the file of seeds, so that the policy fits what that command finds."""
    encoder = ENCODER.encoder()
    asked = Asked("recall", listings, recalled, RECALL, bank, None, encoder, None, ANALYZER, "fail")
    return Pipeline(OfFile(asked).source(encoder, None, None), RECALL, encoder=encoder)


def _count(pipeline: Pipeline) -> int:
    with pipeline.view() as view:
        return pipeline.provenance(view).count


def calibrated(labelled: Path, pipeline: Pipeline) -> Calibration:
    """The demo's policy over its labelled listings.

    Args:
        labelled: The file of these.
        pipeline: Over the seeds that it is to be for.
    """
    described = {"file": labelled.name, "sha256": digest.of_file(labelled)}
    return calibrate(records.read(str(labelled)), pipeline, PROMISE, described=described)


def _decided(results: list[Record], found: Calibration, pipeline: Pipeline) -> list[Record]:
    deciding = Deciding(found.policy)
    with pipeline.view() as view:
        deciding.begin(pipeline.provenance(view), None)
    return deciding.block(results)[0]


def _write(path: Path, results: list[Record]) -> None:
    with publish.writing(path) as sink:
        sink.writelines(map(records.dumps, results))
