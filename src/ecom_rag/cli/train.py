"""train embedder, train reranker."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ecom_rag.cli.command import Command
from ecom_rag.cli.console import shows_progress, tell, tell_notes
from ecom_rag.cli.options import Verbose, prepare

RecipePath = Annotated[str, typer.Argument(help="Recipe: a TOML file.", metavar="RECIPE.toml", show_default=False)]
Resume = Annotated[bool, typer.Option("--resume", help="Resume an unfinished run of the same recipe.")]
_MINUTE = 60.0

app = typer.Typer(
    name="train",
    help="Fine-tune an embedder or a reranker by a recipe, with validation and the best checkpoint.",
    no_args_is_help=True,
)


@app.command(cls=Command)
def embedder(recipe: RecipePath, resume: Resume = False, verbose: Verbose = False) -> None:
    """Fine-tune an embedder: circle loss, InfoNCE, supervised contrastive, distillation, or all of bge-m3.

    Decoders (Qwen3-Embedding and others) are tuned with adapters: [lora] in the recipe.
    The finished folder loads in ecom_rag, sentence-transformers and FlagEmbedding; train_report.json and
    learning_curve.png lie beside the weights. The keys of a recipe are in docs/training.md.

    \b
    Examples:
      ecom-rag train embedder recipe.toml
      ecom-rag train embedder recipe.toml --resume
      torchrun --nproc-per-node 4 -m ecom_rag train embedder recipe.toml
    """
    _run(recipe, "embedder", resume, verbose)


@app.command(cls=Command)
def reranker(recipe: RecipePath, resume: Resume = False, verbose: Verbose = False) -> None:
    """Fine-tune a reranker: listwise or binary cross-entropy, distillation from teacher scores.

    Language models that answer a prompt (Qwen3-Reranker and others) are tuned with adapters: [lora] in the recipe.

    \b
    Example:
      ecom-rag train reranker recipe.toml
    """
    _run(recipe, "reranker", resume, verbose)


def _run(path: str, task: Any, resume: bool, verbose: bool) -> None:
    prepare(verbose)
    from ecom_rag.training.recipe import read_recipe
    from ecom_rag.training.start import require_extra

    recipe = read_recipe(path, task)
    require_extra()
    _quiet()
    from ecom_rag.training.fit import train

    with _bar() as progress:
        report = train(recipe, resume=resume, progress=progress)
    if int(os.environ.get("RANK", "0")) > 0:  # under torchrun the first process speaks for all
        return
    dev = report["dev"]
    figures = f", dev {dev['measure']} {dev['before']:.4f} -> {dev['after']:.4f}" if dev else ""
    tell(f"trained {report['steps']} steps in {report['seconds']} s{figures} -> {recipe.output}")
    tell_notes(report["data"]["notes"])


def _quiet() -> None:
    """Other libraries' bars and advice off; transformers would log the whole configuration of a trainer."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


@contextlib.contextmanager
def _bar() -> Iterator[Any]:
    """A bar with loss and dev measure on a terminal; elsewhere a line a minute and at each validation."""
    from tqdm import tqdm

    terminal = shows_progress()
    bar = tqdm(desc="training", unit="step", file=sys.stderr, dynamic_ncols=True, disable=not terminal)
    told = time.monotonic()

    def progress(step: int, steps: int, figures: dict[str, float], validated: bool) -> None:
        nonlocal told
        shown = {key: f"{value:.4f}" for key, value in figures.items() if isinstance(value, float)}
        bar.total = steps
        bar.n = step
        bar.set_postfix(shown)
        if not terminal and (validated or time.monotonic() - told > _MINUTE):
            told = time.monotonic()
            words = "".join(f", {key} {value}" for key, value in shown.items())
            tell(f"step {step} of {steps}{words}")

    with bar:
        yield progress
