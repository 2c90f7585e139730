"""The file job: a stream of records in, blocks of results out, resumable. Every command over files is one.

A job is cut into blocks by its input alone, and a block's results depend on nothing but the block: so the output is the
same bytes whether the run was killed and resumed or not.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ecom_rag.arguments import whole_or_none
from ecom_rag.errors import UsageError
from ecom_rag.files import json_text, publish, records
from ecom_rag.files.formats import output_format
from ecom_rag.files.parts import Held, Part
from ecom_rag.files.records import ReadReport, Record
from ecom_rag.files.resumable import ResumableOutput
from ecom_rag.files.streamed import StreamOutput

BLOCK_RECORDS = 4096  # no block has more records, whatever a job's own cut allows
COLLECTED = (100_000, 20, 100)
"""Thresholds of ``gc`` for a process that does blocks: records have no cycles, and a block is many objects."""
Item = TypeVar("Item")
Block = list[Record]
Done = tuple[list[Record], Mapping[str, int]]
"""What was made of a block: its results, and what was counted in it."""
Process = Callable[[Block], Done]
"""What a job does to a block of records. Pure, the same here and elsewhere."""
Written = tuple[bytes, Mapping[str, int]]
"""As ``Done``, with the results as the lines that are written."""


class Work(Protocol):
    """What another process must know to do the blocks of a job; it can be pickled."""

    @property
    def gpus(self) -> int:
        """GPUs that a process needs."""

    def start(self) -> Process:
        """Make ready there; raises ``EcomRagError`` where the results would be others than here."""


class Workers(Protocol):
    """Processes elsewhere that do blocks, e.g. ``distribution.RayActors``.

    Attributes:
        shards: Parts that a bank is cut into, each for a process of its own; ``None`` where each worker opens it whole.
    """

    shards: int | None

    def hold(self, parts: Sequence[Part]) -> Held:
        """Have processes hold parts, as long as the workers are there."""

    def each(self, work: Work, blocks: Iterator[Block]) -> Iterator[tuple[Block, Written]]:
        """Each block with what was made of it, in their order."""


def written(done: Done) -> Written:
    """What was made of a block, as it is written."""
    results, counts = done
    return json_text.dumps_all(results), counts


def here(process: Process, blocks: Iterator[Block]) -> Iterator[tuple[Block, Written]]:
    """Each block with what was made of it, one after the other in this process."""
    return ((block, written(process(block))) for block in blocks)


def elsewhere(
    workers: Workers,
    work: Callable[[], Work],
    told: Callable[[Block], None],
    finish: Callable[[Done], Done] | None = None,
) -> Callable[[Process, Iterator[Block]], Iterator[tuple[Block, Written]]]:
    """As ``here``, by other processes.

    Args:
        workers: They.
        work: Called once there is a block to do, gives what they must know.
        told: Called with each block when it is done, in their order.
        finish: What is done here to what they made of each block, in their order; by default nothing, and their
            lines are written without being read.
    """

    def each(process: Process, blocks: Iterator[Block]) -> Iterator[tuple[Block, Written]]:
        for block, (lines, counts) in workers.each(work(), blocks):
            told(block)
            yield block, (lines, counts) if finish is None else written(finish((json_text.loads_all(lines), counts)))

    return each


def text_length(record: Record) -> int:
    """Characters of a record's text."""
    return len(record["text"])


@dataclass(frozen=True, slots=True)
class Cut:
    """How a stream is cut into blocks.

    Args:
        max_records: Most records per block.
        max_size: Largest sum of sizes per block; a single larger record is a block of its own.
        size: Size of one, e.g. the length of its text.
    """

    max_records: int = BLOCK_RECORDS
    max_size: int = 2_000_000
    size: Callable[[Any], int] = text_length


@dataclass
class Summary:
    """What a run did.

    Args:
        records: Input records whose results are in the output, those of an interrupted run included.
        rejected: Lines refused under ``on_bad_line="skip"``.
        resumed: Records that an interrupted run had already done.
        seconds: Of the whole call.
        seeds: Seeds searched, where there are any.
        counts: What the job counted in its results, those of an interrupted run included.
        notes: Things worth a user's eye, one line each.
    """

    records: int = 0
    rejected: int = 0
    resumed: int = 0
    seconds: float = 0.0
    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """What is done to a file.

    Args:
        output: Path of the results, or ``-`` for standard output.
        settings: Everything that decides the output's bytes; a resumed run must have the same.
        read: The input from its first record on; refused lines go to the report.
        start: Called once with the folder in which intermediate results may be kept (``None`` for a stream), gives
            what is done to each block.
        cut: How blocks are cut.
        accept: Called when all is done, before the output gets its name; an error that it raises leaves nothing.
        earlier: Report of a file that was read before, e.g. the seeds.
        replay: Called before the first block of a resumed run with what the interrupted one had written, for a job
            that remembers what came before.
        each: How blocks get done, by what ``start`` gave.
    """

    output: str
    settings: Mapping[str, Any]
    read: Callable[[ReadReport], Iterator[Record]]
    start: Callable[[Path | None], Process]
    cut: Cut = field(default_factory=Cut)
    accept: Callable[[Summary], None] = lambda summary: None
    earlier: ReadReport = field(default_factory=ReadReport)
    replay: Callable[[Iterator[Record]], None] = lambda written: None
    each: Callable[[Process, Iterator[Block]], Iterator[tuple[Block, Written]]] = here


def run(job: Job, *, started: float, resume: bool = False) -> Summary:
    """Do a job, or what an interrupted run left of it.

    Args:
        job: What is done.
        started: ``time.monotonic()`` when the call began that the summary tells of.
        resume: Continue an interrupted run of the same settings, where there is one.

    Raises:
        EcomRagError: Anything the user can mend; nothing half-written is left under the output's name.
    """
    report = ReadReport()
    with open_output(job.output, settings=job.settings, resume=resume) as sink:
        if not sink.already_complete:
            sink.write_rejections(job.earlier.rejections)
            stream = job.read(report)
            sink.skip_done(stream)
            process = job.start(sink.cache)
            if sink.resumed_records:
                job.replay(sink.written())
            for block, (lines, counts) in job.each(process, blocks_of(stream, job.cut)):
                sink.write_block(block, lines, report.rejections, counts)
            sink.write_rejections(report.rejections)
        summary = Summary(
            sink.records, report.rejected + job.earlier.rejected, sink.resumed_records, counts=sink.counts
        )
        try:
            job.accept(summary)
        except Exception:
            sink.abandon()
            raise
        sink.finish()
    summary.notes += _notes(sink, report, job.earlier)
    summary.seconds = time.monotonic() - started
    return summary


def open_output(output: str, *, settings: Mapping[str, Any], resume: bool = False) -> ResumableOutput | StreamOutput:
    """Where a job writes: a file that can be continued, or a pipe, a device or standard output, which cannot.

    Args:
        output: Path, or ``-``.
        settings: Everything that decides the output's content; compared on resuming.
        resume: Continue an unfinished run of the same settings, where there is one.

    Raises:
        UsageError: The output cannot be written, another run is writing there, or ``resume`` with a pipe.
        ResumeError: The unfinished run had other settings.
    """
    target = publish.target_of(output)
    kind = output_format(output, stream=target.stream)
    if not target.stream:
        return ResumableOutput(target, kind, settings=settings, resume=resume)
    if resume:
        raise UsageError(f"`resume` needs a file to continue; give `output` a path instead of {output}")
    return StreamOutput(target, kind)


def _notes(sink: ResumableOutput | StreamOutput, report: ReadReport, earlier: ReadReport) -> list[str]:
    notes = []
    if sink.already_complete:
        notes.append("the interrupted run had already finished its work; only the file's name was missing")
    notes += sink.notes
    replaced = report.surrogates_replaced + earlier.surrogates_replaced
    if replaced:
        notes.append(f"{replaced} records held lone surrogates (half of a cut emoji), replaced by U+FFFD")
    if sink.records == 0:
        why = "all lines of the input were refused" if report.rejected else "the input held no records"
        notes.append(f"{why}: the output is empty")
    return notes


def blocks_of(items: Iterable[Item], cut: Cut) -> Iterator[list[Item]]:
    """A stream as blocks bounded in number and in size; depends on nothing but the stream."""
    block: list[Item] = []
    total, most = 0, min(cut.max_records, BLOCK_RECORDS)
    for record in items:
        weight = cut.size(record)
        if block and (len(block) == most or total + weight > cut.max_size):
            yield block
            block, total = [], 0
        block.append(record)
        total += weight
    if block:
        yield block


def check_files(inputs: str, seeds: str | None, output: str, *, on_bad_line: str, top_k: int | None) -> None:
    """Everything that can be told without reading: a mistake is found before a model is loaded."""
    if on_bad_line not in ("fail", "skip"):
        raise UsageError(f"`on_bad_line` {on_bad_line!r} is unknown; expected fail or skip")
    if on_bad_line == "skip" and is_stream(output):
        raise UsageError(
            f"`on_bad_line` skip writes the refused lines beside the output; give `output` a path instead of {output}"
        )
    whole_or_none(top_k, "top_k")
    if seeds == "-":
        raise UsageError("`seeds` - is not supported: standard input is for the queries; give the seeds as a file")
    check_output(output)
    for path in (inputs, seeds):
        if path is not None and path != "-":
            records.file_format(path)
            if not Path(path).is_file():
                what = "is not a file" if Path(path).exists() else "no such file"
                hint = ", or pass - to read standard input" if path is inputs else ""
                raise UsageError(f"{path}: {what}; check the path{hint}")
            check_not_read(output, [path])


def check_output(output: str) -> None:
    """Raise ``UsageError`` if ``output`` could not be written, before any work is done for it."""
    target = publish.target_of(output)
    output_format(output, stream=target.stream)


def check_not_read(output: str, inputs: Iterable[str | Path | None]) -> None:
    """Raise ``UsageError`` if ``output`` is one of the files that the run reads."""
    publish.check_not_read(publish.target_of(output), inputs)


def is_stream(output: str) -> bool:
    """Whether an output is a pipe or a device, which is written as the results come and has no files beside it."""
    return publish.target_of(output).stream


def line_count(path: str) -> int | None:
    """Lines of a plain JSON lines file, for a progress bar; ``None`` where counting would cost too much."""
    if path == "-" or records.file_format(path) != ".jsonl" or Path(path).stat().st_size > 1 << 30:
        return None
    with Path(path).open("rb") as handle:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: handle.read(1 << 20), b""))
