"""journal verify, export: what a service has decided, and what people said of it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ecom_rag.cli.command import Command
from ecom_rag.cli.console import tell
from ecom_rag.cli.options import Output, Verbose, prepare
from ecom_rag.errors import UsageError

app = typer.Typer(
    name="journal",
    help="Check and export the journal of a service: its decisions and what people said of them.",
    no_args_is_help=True,
)


class Kind(StrEnum):
    """What is exported; the names are those of ``serving.journal.exports``."""

    verdicts = "verdicts"
    training = "training"
    decided = "decided"


File = Annotated[str, typer.Argument(help="Journal: journal.db in the state folder of a service.", show_default=False)]


@app.command(cls=Command)
def verify(
    file: File,
    known: Annotated[
        str | None,
        typer.Option(
            help="SEQUENCE:HASH that an earlier verify printed and that was kept elsewhere.", show_default="none"
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Check the hash chain of a journal, also while a service writes it, and print its last entry as SEQUENCE:HASH.

    An entry that was changed, removed, inserted or moved is an error. Only --known finds that somebody has rewritten
    all hashes: keep the printed line on another machine, and pass it the next time.

    \b
    Examples:
      ecom-rag journal verify state/journal.db
      ecom-rag journal verify state/journal.db --known 7:c0ffee...
    """
    prepare(verbose)
    from ecom_rag.serving.journal import Head, Journal

    head = None
    if known is not None:
        sequence, _, digest = known.partition(":")
        if not (sequence.isascii() and sequence.isdigit() and digest):
            raise UsageError(
                f"--known {known!r:.80} is not SEQUENCE:HASH; pass the line that an earlier verify printed"
            )
        head = Head(int(sequence), digest)
    with Journal.open(_existing(file)) as journal:
        last = journal.verify(head)
    typer.echo(f"{last.sequence}:{last.hash}")
    tell(f"{file}: {last.sequence} entries, all as they were written")


@app.command(cls=Command)
def export(
    file: File,
    output: Output,
    kind: Annotated[
        Kind,
        typer.Option(
            help="verdicts: results with people's labels, for calibrate, evaluate and decide --reviewed; training:"
            " texts and labels, for train; decided: decided records with people's labels, for monitor."
        ),
    ] = Kind.verdicts,
    bank: Annotated[str | None, typer.Option(help="Only decisions over this bank.", show_default="all")] = None,
    label_key: Annotated[str, typer.Option(help="Metadata key for the person's label.")] = "label",
    verbose: Verbose = False,
) -> None:
    """Write the texts that people have judged on the review page or by the API, also while a service runs.

    Texts that were only settled together with a judged text of their flood are left out: nobody has looked at them.

    \b
    Examples:
      ecom-rag journal export state/journal.db --output verdicts.jsonl
      ecom-rag journal export state/journal.db --kind training --output labelled.jsonl
    """
    prepare(verbose)
    from ecom_rag.files import writing
    from ecom_rag.serving.journal import Journal

    with Journal.open(_existing(file)) as journal:
        count = writing.write(output, journal.export(kind.value, label_key=label_key, bank=bank))
    tell(f"{count} records -> {'stdout' if output == '-' else output}")


def _existing(file: str) -> Path:
    """The file, which opening would make where there is none."""
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"{file}: is not a file; expected journal.db in the state folder of a service")
    return path
