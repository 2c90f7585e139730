"""audit."""

from typing import Annotated

import typer

from ecom_rag.cli.console import tell, tell_notes
from ecom_rag.cli.options import (
    Bank,
    BatchTokens,
    Device,
    Output,
    Precision,
    Runtime,
    RuntimeName,
    Seeds,
    Verbose,
    bars,
    check_apart,
    command_line,
    names,
    placed,
    prepare,
)
from ecom_rag.cli.reading import Deobfuscate, analysis, encoder_options

Queries = Annotated[
    str | None,
    typer.Option(help="Results of recall over the same seeds, with labels if there are any.", show_default="none"),
]
Model = Annotated[str | None, typer.Option(help="Encoder of the seeds.", show_default="the bank's")]
Report = Annotated[str | None, typer.Option(help="HTML page to write.", show_default="none")]
Innocent = Annotated[
    str | None, typer.Option(help="Comma-separated labels that stand for nothing wrong.", show_default="none")
]
Conflict = Annotated[
    float | None,
    typer.Option(help="Probability of its own label below which a seed is in conflict.", show_default="by the bank"),
]
First = Annotated[int, typer.Option(help="Results per listing of --queries that count as hits.", min=1)]
Promise = Annotated[float, typer.Option(help="Precision to promise later: decides how many campaigns a label needs.")]
Delta = Annotated[float, typer.Option(help="Probability with which that promise may be broken.")]
LabelKey = Annotated[
    str | None,
    typer.Option(help="Metadata key of the labels of --queries.", show_default="that of the seeds"),
]
Similarity = Annotated[float, typer.Option(help="Similarity from which two texts are of one campaign, 0.7 to 1.")]
EncoderPrecision = Annotated[Precision, typer.Option(help="Precision of the encoder, as --precision of recall.")]


def audit(
    context: typer.Context,
    output: Output,
    bank: Bank = None,
    seeds: Seeds = None,
    model: Model = None,
    queries: Queries = None,
    report: Report = None,
    innocent: Innocent = None,
    conflict: Conflict = None,
    first: First = 10,
    precision: Promise = 0.95,
    delta: Delta = 0.1,
    label_key: LabelKey = None,
    similarity: Similarity = 0.85,
    deobfuscate: Deobfuscate = None,
    runtime: Runtime = RuntimeName.auto,
    encoder_precision: EncoderPrecision = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    verbose: Verbose = False,
) -> None:
    """Find seeds to look at again: conflicting labels, duplicates, seeds that are hit and wrong or never hit.

    Each label is judged by similar seeds outside its own campaign (near-duplicates are one). Nothing is removed: the
    findings, most urgent first, are records that bank delete and bank add take.

    \b
    Examples:
      ecom-rag audit --bank bank --output audit.jsonl --report audit.html
      ecom-rag audit --bank bank --queries recalled.jsonl --innocent ok --output audit.jsonl
      ecom-rag audit --seeds seeds.jsonl --model starter --output audit.jsonl
    """
    prepare(verbose)
    check_apart(output, queries, model)
    from ecom_rag.decision.audit_files import as_text, audit_file
    from ecom_rag.decision.settings import Auditing
    from ecom_rag.models.spec import ModelSpec

    asked = Auditing(conflict, names(innocent), precision, delta, similarity, first, label_key)
    options = encoder_options(placed(runtime, encoder_precision, device, batch_tokens), deobfuscate)
    spec = ModelSpec(model, options) if model is not None or bank is not None else None
    places = {"seeds": seeds, "bank": bank, "queries": queries, "report": report, "analyzer": analysis(deobfuscate)}
    made_by = command_line(context, without=("output", "report"))
    with bars() as progress:
        found = audit_file(output, asked, model=spec, made_by=made_by, progress=progress, **places)
    if output != "-":
        typer.echo(as_text(found), nl=False)
    tell(f"{len(found.findings)} findings -> {'stdout' if output == '-' else output}")
    tell_notes(found.notes)
