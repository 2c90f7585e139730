"""choose, monitor."""

from typing import Annotated

import typer

from ecom_rag.cli.console import tell, tell_notes, write_bytes
from ecom_rag.cli.guard import ALARM
from ecom_rag.cli.options import Output, Verbose, check_apart, prepare
from ecom_rag.cli.wording import worded
from ecom_rag.errors import UsageError

Audited = Annotated[
    str,
    typer.Argument(help="Decided records with persons' labels, in the order audited; - is stdin.", show_default=False),
]
Alpha = Annotated[float, typer.Option(help="Probability of a false alarm per class, however often you look.")]
CountSelected = Annotated[
    bool, typer.Option("--count-selected", help="Count texts chosen for their uncertainty too: no random sample.")
]
Figures = Annotated[
    str | None, typer.Option("--output", "-o", help="File for the figures as JSON; - prints them instead.")
]


def choose(
    decided: Annotated[
        str, typer.Argument(help="Decided records, written by ecom-rag decide; - is stdin.", show_default=False)
    ],
    output: Output,
    count: Annotated[int, typer.Option("--count", "-n", help="Texts to choose, at most one per campaign.", min=1)],
    audit_share: Annotated[
        float, typer.Option(help="Share of them drawn at random from all campaigns, 0 to 1.", min=0, max=1)
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Random seed of the audit's draw.", min=0)] = 0,
    verbose: Verbose = False,
) -> None:
    """Choose what to label next: texts that the policy is unsure of and that are new, and a random audit.

    The score of a text is its uncertainty (1 - first + second probability) times its novelty (less than 1 where it
    shares most characters with a seed). The audit is drawn from all campaigns, those decided automatically
    included; only its texts are a random sample for monitor. "chosen" in each output record says how it was chosen.

    \b
    Examples:
      ecom-rag choose decided.jsonl --count 200 --output to_label.jsonl
      ecom-rag choose decided.jsonl --count 300 --audit-share 1 --seed 7 --output audit.csv
    """
    prepare(verbose)
    from ecom_rag.decision.choose import choose_file

    found = choose_file(decided, output, count=count, audit_share=audit_share, seed=seed)
    target = "stdout" if output == "-" else output
    tell(
        f"chose {len(found.records) - found.audit} uncertain texts and {found.audit} for the audit, of"
        f" {found.campaigns} campaigns in {found.read} records -> {target}"
    )
    tell_notes(found.notes)


def monitor(
    audited: Audited,
    policy: Annotated[str, typer.Option(help="Policy that decided them: policy.json.", show_default=False)],
    label_key: Annotated[
        str, typer.Option(help="Metadata key of the person's label; records without one are skipped.")
    ] = "label",
    alpha: Alpha = 0.05,
    jointly: Annotated[
        bool, typer.Option("--jointly", help="Let --alpha be for all classes together: each gets an equal part.")
    ] = False,
    count_selected: CountSelected = False,
    output: Figures = None,
    plot: Annotated[str | None, typer.Option(help="Picture of the e-values: .svg, or .html with the table.")] = None,
    verbose: Verbose = False,
) -> None:
    """Raise an alarm if a class goes wrong more often than its policy promises; exit code 3.

    Each class with a threshold starts with an e-value of 1, which grows with errors and shrinks with right decisions.
    The alarm goes off at 1 / alpha. You may look after every decision: a promise that holds raises an alarm with a
    probability of at most alpha. One text per campaign counts; texts decided "review" do not.

    \b
    Examples:
      ecom-rag monitor audited.jsonl --policy policy.json
      ecom-rag monitor audited.csv --policy policy.json --label-key verdict --output figures.json --plot watch.svg
    """
    prepare(verbose)
    from ecom_rag.decision import monitor_report
    from ecom_rag.decision.monitor import as_json, monitor_file
    from ecom_rag.files import publish, records

    _check_outputs(output, plot, audited, policy)
    found = monitor_file(
        audited, policy, label_key=label_key, alpha=alpha, jointly=jointly, count_selected=count_selected
    )
    if plot is not None:
        monitor_report.write_plot(found, plot)
    if output == "-":
        write_bytes(records.dumps(as_json(found)))
    else:
        typer.echo(worded(monitor_report.as_text(found)), nl=False)
    if output is not None and output != "-":
        with publish.writing(output) as sink:
            sink.write(records.dumps(as_json(found)))
    tell_notes(found.notes)
    for one in found.alarms:
        tell(f"alarm: {one.label}: {one.errors} of {len(one.wrong)} audited decisions wrong, {one.limit:.1%} promised")
    if found.alarms:
        raise typer.Exit(ALARM)


def _check_outputs(output: str | None, plot: str | None, *read: str) -> None:
    """Nothing that is read is written over, and the two outputs are apart; all of it before any work."""
    from ecom_rag.decision.monitor_report import check_plot

    if plot is not None:
        check_plot(plot)
    for written in (output, plot):
        if written is not None and written != "-":
            check_apart(written, *read)
    if output is not None and output == plot:
        raise UsageError(f"{output}: is named for two outputs; give each its own")
