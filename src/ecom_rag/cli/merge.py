"""merge."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ecom_rag.cli.console import tell
from ecom_rag.cli.options import Device, Verbose, bars, prepare
from ecom_rag.errors import UsageError
from ecom_rag.files import workfolders


class Method(StrEnum):
    """How weights are merged."""

    linear = "linear"
    slerp = "slerp"
    task_arithmetic = "task-arithmetic"
    ties = "ties"


def merge(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Checkpoints to merge: local folders, hub ids or 'starter', each optionally with =WEIGHT.",
            metavar="MODEL[=WEIGHT]...",
            show_default=False,
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder to write; must not exist.", show_default=False)],
    method: Annotated[Method, typer.Option(help="Method of merging.")] = Method.linear,
    base: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint the models were tuned from; task-arithmetic and ties need it.", show_default="the first"
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(help="Folder of a LoRA adapter (peft), to merge into the one MODEL.", show_default=False),
    ] = None,
    density: Annotated[float, typer.Option(help="With ties: share of each task vector that is kept.")] = 0.2,
    scale: Annotated[
        float, typer.Option("--lambda", help="With task-arithmetic and ties: factor of the merged task vector.")
    ] = 1.0,
    examples: Annotated[
        str | None, typer.Option(help="JSON lines with query, pos and neg, from which LM-Cocktail computes weights.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="With --examples: a low value favours the better model.")] = 5.0,
    validate: Annotated[
        str | None, typer.Option(help="TOML file of validation sets, on which weights are searched.")
    ] = None,
    blocks: Annotated[
        int, typer.Option(help="With --validate: number of blocks of layers with separate weights.", min=1)
    ] = 1,
    budget: Annotated[int, typer.Option(help="With --validate: maximum number of merges measured.", min=3)] = 24,
    device: Device = "auto",
    verbose: Verbose = False,
) -> None:
    """Merge checkpoints of one network: encoders, rerankers, and bge-m3 with its heads.

    Weights are given by hand, computed from a few examples, or found on validation sets. The folder loads in ecom_rag,
    sentence-transformers and FlagEmbedding; merge_report.json in it says what was merged and how.

    \b
    Examples:
      ecom-rag merge tuned=0.6 starter=0.4 --output merged
      ecom-rag merge tuned --base BAAI/bge-m3 --method task-arithmetic --lambda 0.7 --output merged
      ecom-rag merge model-a model-b --examples few.jsonl --output merged
      ecom-rag merge starter tuned --validate sets.toml --output merged
      ecom-rag merge Qwen/Qwen3-Embedding-0.6B --adapter adapter --output merged
    """
    prepare(verbose)
    if adapter is not None:
        _by_adapter(models, adapter, output)
        return
    from ecom_rag.merging import Mix, Models
    from ecom_rag.merging.methods import check_mix
    from ecom_rag.merging.search import check_log

    names, given = _names_and_weights(models)
    if sum(option is not None for option in (given, examples, validate)) > 1:
        raise UsageError("weights come from MODEL=WEIGHT, from --examples or from --validate; give one of the three")
    workfolders.check_new(Path(output))
    if validate is not None:
        check_log(_search_log(output))
    mix = Mix((given or (1.0,) * len(names),), method, density, scale)
    mix = check_mix(mix, len(names), has_base=base is not None)
    with bars() as progress:
        opened = Models(names, base=base)
        details: dict[str, Any] = {}
        if examples is not None:
            mix, details = _by_examples(mix, opened, examples, temperature, device)
        if validate is not None:
            mix, details = _by_validation(mix, opened, validate, output, blocks, budget, device, progress)
        opened.write(output, mix, details=details, progress=progress and (lambda done: progress("merging", done, None)))
    if validate is not None:
        _search_log(output).unlink(missing_ok=True)
    _tell(names, mix, details, output)


def _names_and_weights(models: list[str]) -> tuple[list[str], tuple[float, ...] | None]:
    """``MODEL=WEIGHT`` taken apart; the weights of all or of none."""
    names, weights = [], []
    for text in models:
        name, equals, number = text.rpartition("=")
        if not equals or Path(text).is_dir():
            names.append(text)
            continue
        try:
            weights.append(float(number))
        except ValueError:
            raise UsageError(f"{text}: the weight {number!r} is not a number; expected MODEL=WEIGHT") from None
        names.append(name)
    if weights and len(weights) < len(names):
        raise UsageError(f"{len(weights)} of {len(names)} models have a weight; give one to each or to none")
    return names, tuple(weights) if weights else None


def _by_adapter(models: list[str], adapter: str, output: str) -> None:
    from ecom_rag.merging import merge_adapter

    if len(models) > 1:
        raise UsageError(f"{len(models)} models were given with --adapter; expected the one that it was trained on")
    with bars() as progress:
        report = merge_adapter(
            models[0], adapter, output, progress=progress and (lambda done: progress("merging", done, None))
        )
    tell(f"merged {adapter} into {report['adapter']['layers']} layers of {models[0]} -> {output}")


def _by_examples(mix: Any, opened: Any, path: str, temperature: float, device: str) -> tuple[Any, dict[str, Any]]:
    from dataclasses import replace

    from ecom_rag.merging.cocktail import model_losses, weights_of
    from ecom_rag.mining.triples import read_examples

    few = read_examples(path)
    weights_of([0.0], temperature=temperature)
    losses = model_losses(opened.opened, few, device=device)
    weights = weights_of(losses, temperature=temperature)
    found = {"examples": path, "count": len(few), "losses": losses, "temperature": temperature}
    return replace(mix, weights=(weights,)), {"weights_from": found}


def _by_validation(
    mix: Any, opened: Any, path: str, output: str, blocks: int, budget: int, device: str, progress: Any
) -> tuple[Any, dict[str, Any]]:
    from ecom_rag.merging.search import find_weights
    from ecom_rag.merging.validation import load, read_spec

    sets = read_spec(path)
    found = find_weights(
        opened,
        [load(item) for item in sets],
        mix,
        blocks=blocks,
        budget=budget,
        device=device,
        log=_search_log(output),
        progress=progress and (lambda done: progress("measuring merges", done, budget)),
    )
    return found.mix, {"weights_from": {"validation": path, **found.report(sets)}}


def _search_log(output: str) -> Path:
    return Path(output).with_name(f"{Path(output).name}.search.jsonl")  # OUT may end in a slash


def _tell(names: list[str], mix: Any, details: dict[str, Any], output: str) -> None:
    by_model = zip(names, zip(*mix.weights, strict=True), strict=True)
    shown = ", ".join(f"{name} {'/'.join(f'{weight:.3g}' for weight in weights)}" for name, weights in by_model)
    scale = f", lambda {mix.scale:.3g}" if mix.method in ("task-arithmetic", "ties") else ""
    tell(f"merged {shown} by {mix.method}{scale} -> {output}")
    found = details.get("weights_from", {})
    for item in found.get("sets", []):
        tell(f"{item['name']}: nDCG@10 {item['base']:.4f} -> {item['merged']:.4f}")
    if found.get("within") is False:
        tell("note: every merge that was tried loses more than asked; this one least")
