"""calibrate, decide."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecom_rag.cli.console import tell, tell_notes
from ecom_rag.cli.options import (
    BadLine,
    Bank,
    BatchTokens,
    Device,
    OnBadLine,
    Output,
    Precision,
    Resume,
    Runtime,
    RuntimeName,
    Seeds,
    Verbose,
    bars,
    check_apart,
    check_outputs,
    command_line,
    names,
    placed,
    prepare,
    report,
)
from ecom_rag.cli.reading import Deobfuscate, analysis, encoder_options
from ecom_rag.errors import UsageError

if TYPE_CHECKING:
    from ecom_rag.decision.deciding import Deciding

SeedIds = Annotated[str, typer.Option("--id-key", help="Metadata key of the seeds' ids, named in each decision.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop where the bank has changed since the policy was calibrated.")
]
Campaigns = Annotated[
    str | None,
    typer.Option(
        help="File that remembers campaigns (near-duplicates) from run to run.", show_default="POLICY.campaigns"
    ),
]
FloodLimit = Annotated[int, typer.Option(help="Automatic decisions per campaign before a person must look.", min=1)]
Reviewed = Annotated[
    str | None,
    typer.Option(help="Records with labels that people gave: their campaigns are decided again.", show_default="none"),
]


def calibrate(
    context: typer.Context,
    recalled: Annotated[
        str,
        typer.Argument(help="Results of recall for labelled listings that are not in the bank.", show_default=False),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Policy to write, policy.json.", show_default=False)],
    page: Annotated[
        str | None, typer.Option("--report", help="HTML report to write, with plots.", show_default=False)
    ] = None,
    seeds: Seeds = None,
    bank: Bank = None,
    model: Annotated[str | None, typer.Option(help="Encoder that recall used.", show_default="the bank's")] = None,
    precision: Annotated[
        float, typer.Option(help="Share of the decided campaigns that must be right, class by class.")
    ] = 0.95,
    delta: Annotated[float, typer.Option(help="Probability with which a promise may be broken.")] = 0.1,
    jointly: Annotated[
        bool, typer.Option("--jointly", help="Make --delta count for all classes together, not for each by itself.")
    ] = False,
    pool: Annotated[
        bool,
        typer.Option("--pool", help="Give classes with too few labels one threshold and one promise together."),
    ] = False,
    innocent: Annotated[
        str | None, typer.Option(help="Comma-separated labels that stand for nothing wrong.", show_default="none")
    ] = None,
    false_positive_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of innocent campaigns that may be decided as something else.", show_default="no promise"
        ),
    ] = None,
    evasive: Annotated[
        str | None,
        typer.Option(
            help="Keep the promise for evasive spellings too, by kind: homophone,lookalike,split,... or all.",
            show_default="none",
        ),
    ] = None,
    filter: Annotated[
        str | None,
        typer.Option(
            help="Calibrate on listings whose metadata match, e.g. 'day >= \"2026-11-01\"'.", show_default="all"
        ),
    ] = None,
    label_key: Annotated[
        str | None, typer.Option(help="Metadata key of the listings' labels.", show_default="that of the seeds")
    ] = None,
    similarity: Annotated[
        float, typer.Option(help="Similarity from which two texts are of one campaign, 0.7 to 1.")
    ] = 0.85,
    deobfuscate: Deobfuscate = None,
    runtime: Runtime = RuntimeName.auto,
    encoder_precision: Annotated[
        Precision, typer.Option(help="Precision of the encoder, as --precision of recall.")
    ] = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    verbose: Verbose = False,
) -> None:
    """Make a policy: thresholds from which a label can be given without a person, with an error rate that is promised.

    Listings are counted by campaign (near-duplicates are one). A class with too few labelled campaigns gets no
    threshold; the summary says how many are missing.

    \b
    Examples:
      ecom-rag recall labelled.jsonl --bank bank --output recalled.jsonl
      ecom-rag calibrate recalled.jsonl --bank bank --precision 0.95 --output policy.json --report calibration.html
      ecom-rag calibrate recalled.jsonl --seeds seeds.jsonl --model starter --innocent ok --false-positive-rate 0.02
        --output policy.json
      ecom-rag calibrate recalled.jsonl --bank bank --evasive homophone,lookalike,split --output policy.json
    """
    prepare(verbose)
    if page == "-":
        raise UsageError("--report - is not supported: standard output is for the summary; give --report a path")
    check_outputs((output, page), (recalled, seeds, bank, model))

    from ecom_rag.decision.files import calibrate_file
    from ecom_rag.decision.page import write_page
    from ecom_rag.decision.settings import Calibrate
    from ecom_rag.decision.tables import as_text
    from ecom_rag.models.spec import ModelSpec

    asked = Calibrate(
        precision=precision,
        delta=delta,
        jointly=jointly,
        pool=pool,
        innocent=names(innocent),
        evasive=_kinds(evasive),
        filter=filter,
        false_positive_rate=false_positive_rate,
        label_key=label_key,
        similarity=similarity,
    )
    options = encoder_options(placed(runtime, encoder_precision, device, batch_tokens), deobfuscate)
    spec = ModelSpec(model, options) if model is not None or bank is not None else None
    places = {"seeds": seeds, "bank": bank, "model": spec, "analyzer": analysis(deobfuscate)}
    with bars() as progress:
        found = calibrate_file(recalled, output, asked, **places, progress=progress)
    if page:
        write_page(found, page, made_by=command_line(context, without=("output", "page")))
    typer.echo(as_text(found), nl=False)
    tell(f"policy {found.policy.fingerprint} -> {output}{f', report -> {page}' if page else ''}")
    tell_notes(found.notes)


def _kinds(text: str | None) -> tuple[str, ...]:
    """Kinds of evasive spellings as they are named on the command line."""
    from ecom_rag.evaluation.evasion import KINDS

    return KINDS if text == "all" else names(text)


def decide(
    recalled: Annotated[str, typer.Argument(help="Results of recall; - is stdin.", show_default=False)],
    policy: Annotated[str, typer.Option(help="Policy made by ecom-rag calibrate.", show_default=False)],
    output: Output,
    strict: Strict = False,
    campaigns: Campaigns = None,
    flood_limit: FloodLimit = 10,
    reviewed: Reviewed = None,
    id_key: SeedIds = "id",
    resume: Resume = False,
    on_bad_line: BadLine = OnBadLine.fail,
    verbose: Verbose = False,
) -> None:
    """Decide each listing: its label, innocent, or a person must look, with the seeds that speak for it and against it.

    Adds "decision" to each record. ecom-rag recall --policy does both at once. After ten automatic decisions in one
    campaign (near-duplicates) a person must look at one of its texts; --reviewed tells what the person found.

    \b
    Examples:
      ecom-rag decide recalled.jsonl --policy policy.json --output decided.jsonl
      ecom-rag decide recalled.parquet --policy policy.json --strict --output decided.parquet
      ecom-rag decide recalled.jsonl --policy policy.json --reviewed reviewed.jsonl --output decided.jsonl
    """
    prepare(verbose)
    check_apart(output, policy, reviewed, campaigns)

    from ecom_rag.decision.files import decide_file

    with bars() as progress:
        summary = decide_file(
            recalled,
            output,
            policy,
            strict=strict,
            id_key=id_key,
            campaigns=campaigns or beside(policy),
            flood_limit=flood_limit,
            reviewed=reviewed,
            resume=resume,
            on_bad_line=on_bad_line,
            progress=progress,
        )
    report(f"{decided(summary)}", summary, output)


def deciding(
    policy: str | None, strict: bool, id_key: str, campaigns: str | None, flood_limit: int, reviewed: str | None
) -> "Deciding | None":
    """What a policy does to the results of recall; ``None`` where there is no policy."""
    if policy is None:
        return None
    from ecom_rag.decision.files import deciding_by

    return deciding_by(
        policy,
        strict=strict,
        id_key=id_key,
        campaigns=campaigns or beside(policy),
        flood_limit=flood_limit,
        reviewed=reviewed,
    )


def beside(policy: str) -> str:
    """Where the campaigns of a policy are remembered, if nothing else is said."""
    return f"{policy}.campaigns"


def decided(summary: Any) -> str:
    """What was decided, in words."""
    counts, total = summary.counts, summary.records
    automatic = counts["label"] + counts["innocent"]
    reasons = {key.removeprefix("review: "): count for key, count in counts.items() if key.startswith("review: ")}
    listed = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in sorted(reasons.items(), key=lambda one: -one[1])
    )
    review = f", {counts['review']} for review ({listed})" if counts["review"] else ""
    return (
        f"decided {automatic} of {total} records ({counts['label']} with a label, {counts['innocent']} as innocent)"
        f"{review}"
    )
