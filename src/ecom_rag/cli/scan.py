"""scan."""

from typing import Annotated

import typer

from ecom_rag.cli.options import (
    BatchTokens,
    Device,
    Output,
    Precision,
    PrecisionOption,
    Resume,
    Runtime,
    RuntimeName,
    Verbose,
    bars,
    check_apart,
    placed,
    prepare,
    report,
)


def scan(
    new_seeds: Annotated[
        str, typer.Argument(help="New seeds, records {text, metadata} with an id; in the bank or not yet.")
    ],
    listings: Annotated[
        str, typer.Option(help="Bank of stored listings, made by ecom-rag bank build.", show_default=False)
    ],
    bank: Annotated[str, typer.Option(help="Seed bank.", show_default=False)],
    output: Output,
    policy: Annotated[
        str | None, typer.Option(help="Policy of ecom-rag calibrate: decide the listings.", show_default="none")
    ] = None,
    depth: Annotated[int, typer.Option(help="Listings that each route offers per new seed.", min=1)] = 500,
    top_k: Annotated[
        int | None, typer.Option("--top-k", "-k", help="Results per listing, among which a hit is.", show_default="10")
    ] = None,
    runtime: Runtime = RuntimeName.auto,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    batch_tokens: BatchTokens = None,
    resume: Resume = False,
    verbose: Verbose = False,
) -> None:
    """Find the stored listings that new seeds hit, without recalling all of them again.

    Writes each listing that is hit as recall would, with "hits": the new seeds among its results. Seeds that the bank
    does not hold yet are added to a copy, so that you see what adding them would change.

    \b
    Examples:
      ecom-rag bank build listings-bank --seeds listings.jsonl --model starter
      ecom-rag scan new_seeds.jsonl --listings listings-bank --bank my-bank --output hits.jsonl
      ecom-rag scan new_seeds.jsonl --listings listings-bank --bank my-bank --policy policy.json --output hits.jsonl
    """
    prepare(verbose)
    check_apart(output, policy)

    from ecom_rag.decision.files import deciding_by
    from ecom_rag.decision.scan import scan_file
    from ecom_rag.models.spec import ModelSpec

    with bars() as progress:
        summary = scan_file(
            new_seeds,
            output,
            listings=listings,
            bank=bank,
            model=ModelSpec(None, placed(runtime, precision, device, batch_tokens)),
            deciding=None if policy is None else deciding_by(policy),
            depth=depth,
            top_k=top_k or 10,
            resume=resume,
            progress=progress,
        )
    counts = summary.counts
    report(
        f"scanned for {summary.records} new seeds: {counts['hit']} listings are hit ({counts['recalled']} recalled)",
        summary,
        output,
    )
