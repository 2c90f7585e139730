"""What the file forms of all tools share: checks before any work, blocks, cached seed embeddings, the summary."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ecom_rag.arguments import whole_or_none
from ecom_rag.errors import UsageError
from ecom_rag.files import disk, jobs, records
from ecom_rag.files.identity import known_id
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import ReadReport, Record
from ecom_rag.models import Embeddings, Encoder
from ecom_rag.text.normalization import canonical

_BLOCK_RECORDS = 4096
BLOCK_CHARS = 2_000_000


@dataclass
class Summary:
    """What a run did.

    Args:
        records: Results in the output, those of an interrupted run included.
        seeds: Seeds searched.
        rejected: Lines refused under ``on_bad_line="skip"``.
        resumed: Records that an interrupted run had already done.
        seconds: Of the whole call.
        notes: Things worth a user's eye, one line each.
    """

    records: int = 0
    seeds: int = 0
    rejected: int = 0
    resumed: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass
class OwnIds:
    """Counts the queries that stand among their own results, by their id.

    Args:
        id_key: Metadata key of the ids.
        queries: Looked at.
        own: Of these, with a seed of their own id.
        other_text: Of those, where the seed's text is another one.
    """

    id_key: str
    queries: int = 0
    own: int = 0
    other_text: int = 0

    def look(self, results: Sequence[Record]) -> None:
        """Count some results."""
        for result in results:
            self.queries += 1
            name = known_id(result["metadata"], self.id_key)
            if name is None:
                continue
            texts = [
                text
                for text, metadata in zip(result["topk_seed"], result["topk_metadata"], strict=True)
                if known_id(metadata, self.id_key) == name
            ]
            self.own += bool(texts)
            self.other_text += bool(texts) and result["text"] not in texts

    def notes(self) -> list[str]:
        """What a user should know of them."""
        if not self.own:
            return []
        note = f"{self.own} of {self.queries} queries have themselves (a seed of their own id) among their results"
        if self.other_text:
            note += f", {self.other_text} of them with another text: are the ids of queries and seeds one numbering?"
        return [f"{note}; --exclude-self leaves them out"]


def run_blocks(
    sink: jobs.ResumableOutput,
    stream: Iterator[Record],
    report: ReadReport,
    work: Callable[[list[Record]], list[Record]],
    *,
    max_size: int,
    size: Callable[[Record], int],
) -> None:
    """Work through a stream block by block, past what an interrupted run has done."""
    sink.skip_done(stream)
    for block in jobs.blocks_of(stream, max_records=_BLOCK_RECORDS, max_size=max_size, size=size):
        sink.write_block(block, work(block), report.rejections)
    sink.write_rejections(report.rejections)


def encode_seeds(
    encoder: Encoder, bank: list[Record], outputs: Sequence[str], cache: Path | None, progress: Progress | None
) -> Embeddings:
    """Encode the bank block by block; finished blocks are kept until the run is complete."""
    step = stage(progress, "encoding seeds", len(bank))
    parts: list[Embeddings] = []
    for block in jobs.blocks_of(
        bank, max_records=_BLOCK_RECORDS, max_size=BLOCK_CHARS, size=lambda record: len(record["text"])
    ):
        kept = cache / f"seeds-{len(parts):05d}-{digest(block)}.npz" if cache else None
        if kept is not None and kept.exists():
            parts.append(Embeddings.load(kept))
            step(len(block))
            continue
        parts.append(encoder.encode([seed["text"] for seed in block], outputs=outputs, progress=step))
        if kept is not None:
            disk.keep(kept, parts[-1].save)
    return parts[0] if len(parts) == 1 else Embeddings.concatenate(parts)


def read_seeds(path: str, *, on_bad_line: str, report: ReadReport) -> list[Record]:
    """All seeds of a file.

    Raises:
        UsageError: There are none.
    """
    seeds = list(records.read(path, on_bad_line=on_bad_line, report=report))
    if not seeds:
        raise UsageError(f"{path}: holds no seeds; expected at least one record to search")
    return seeds


def check_files(inputs: str, seeds: str | None, output: str, *, on_bad_line: str, top_k: int | None) -> None:
    """Everything that can be told without reading: a mistake is found before a model is loaded."""
    if on_bad_line not in ("fail", "skip"):
        raise UsageError(f"on_bad_line {on_bad_line!r} is unknown; expected fail or skip")
    if on_bad_line == "skip" and jobs.is_stream(output):
        raise UsageError(
            f"--on-bad-line skip writes the refused lines beside the output; give --output a path instead of {output}"
        )
    whole_or_none(top_k, "--top-k")
    if seeds == "-":
        raise UsageError("--seeds - is not supported: standard input is for the queries; give the seeds as a file")
    jobs.check_output(output)
    for path in (inputs, seeds):
        if path is not None and path != "-":
            records.file_format(path)
            if not Path(path).is_file():
                what = "is not a file" if Path(path).exists() else "no such file"
                hint = ", or pass - to read standard input" if path is inputs else ""
                raise UsageError(f"{path}: {what}; check the path{hint}")
            jobs.check_not_read(output, [path])


def summary_of(sink: jobs.ResumableOutput, report: ReadReport, seeds: ReadReport, started: float) -> Summary:
    """What a finished run did."""
    summary = Summary(
        records=sink.records,
        resumed=sink.resumed_records,
        rejected=report.rejected + seeds.rejected,
        seconds=time.monotonic() - started,
    )
    if sink.already_complete:
        summary.notes.append("the interrupted run had already finished its work; only the file's name was missing")
    summary.notes += sink.notes
    replaced = report.surrogates_replaced + seeds.surrogates_replaced
    if replaced:
        summary.notes.append(f"{replaced} records held lone surrogates (half of a cut emoji), replaced by U+FFFD")
    if summary.records == 0:
        why = "all lines of the input were refused" if report.rejected else "the input held no records"
        summary.notes.append(f"{why}: the output is empty")
    return summary


def bank_notes(bank: list[Record], top_k: int) -> list[str]:
    """What a user should know of a bank of seeds."""
    notes = []
    if top_k > len(bank):
        notes.append(f"top-k {top_k} is more than the {len(bank)} seeds; each record got at most {len(bank)}")
    ids = Counter(name for seed in bank if (name := known_id(seed["metadata"], "id")) is not None)
    double = [key for key, count in ids.items() if count > 1]
    if double:
        notes.append(
            f"{len(double)} seed ids occur more than once (e.g. {double[0]!r}); all of these seeds were searched"
        )
    copies = len(bank) - len(set(canonical([seed["text"] for seed in bank])))
    if copies:
        aside = "case, width, script, white space, invisible characters and final punctuation aside"
        notes.append(f"{copies} seeds are copies of others ({aside}); all were searched")
    return notes


def digest(items: Iterable[Record]) -> str:
    """Of records: changes with any of them."""
    found = hashlib.blake2b(digest_size=16)
    for item in items:
        found.update(records.dumps(item))
    return found.hexdigest()


def count(path: str) -> int | None:
    """Lines of a plain JSON lines file, for a progress bar; ``None`` where counting would cost too much."""
    if path == "-" or records.file_format(path) != ".jsonl" or Path(path).stat().st_size > 1 << 30:
        return None
    with Path(path).open("rb") as handle:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: handle.read(1 << 20), b""))
