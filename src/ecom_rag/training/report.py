"""What a training run leaves beside the checkpoint: ``train_report.json``, a learning curve, and a model card.

No text of the training data goes into any of them.
"""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ecom_rag._version import __version__
from ecom_rag.training.batches import Batches
from ecom_rag.training.data import Groups, Labelled

_PACKAGES = ("torch", "transformers", "sentence-transformers", "datasets", "accelerate", "peft", "numpy")


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"ecom_rag": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def described(data: Labelled | Groups, digest: str) -> dict[str, Any]:
    """Counts of training data, without any text of them."""
    sources = data.sources if isinstance(data, Labelled) else [item.source for item in data.items]
    found: dict[str, Any] = {
        "rows": len(data),
        "digest": digest,
        "notes": data.notes,
        "sources": {name: sources.count(name) for name in dict.fromkeys(sources)},
    }
    if isinstance(data, Labelled):
        found["classes"] = len(set(data.labels))
    else:
        found["positives"] = sum(len(item.positives) for item in data.items)
        found["negatives"] = sum(len(item.negatives) for item in data.items)
    return found


def epochs_shown(batches: Batches, steps: int, accumulation: int) -> list[dict[str, Any]]:
    """A report of every epoch, the last one as far as it went."""
    epochs, rest = divmod(steps, -(-batches.batches // accumulation))  # the last step of an epoch may be a shorter one
    whole = [batches.report(epoch).as_dict() for epoch in range(epochs)]
    rest = min(rest * accumulation, batches.batches)
    return [*whole, batches.report(epochs, batches=rest).as_dict()] if rest else whole


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write the report, the curve and the card into the checkpoint folder."""
    text = json.dumps(report, ensure_ascii=False, indent=1, default=str) + "\n"
    (folder / "train_report.json").write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(_card(report), encoding="utf-8")
    learning_curve(report["log"], report["dev"]["measure"] if report["dev"] else None, folder / "learning_curve.png")


def learning_curve(log: list[dict[str, Any]], measure: str | None, target: Path) -> None:
    """Draw loss and dev measure over steps.

    Args:
        log: The trainer's history.
        measure: Name of the dev measure, if there is one.
        target: The PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    losses = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    if losses:
        left.plot(*zip(*losses, strict=True), color="tab:blue", label="loss")
    left.set_xlabel("step")
    left.set_ylabel("training loss")
    figures = [(entry["step"], entry[f"eval_{measure}"]) for entry in log if f"eval_{measure}" in entry]
    if figures:
        right = left.twinx()
        right.plot(*zip(*figures, strict=True), color="tab:orange", marker="o", label=measure)
        right.set_ylabel(f"dev {measure}")
    if any(axes.get_legend_handles_labels()[0] for axes in figure.axes):  # a run of a few steps may have logged none
        figure.legend(loc="upper center", ncols=2)
    figure.savefig(target, dpi=120, metadata={"Software": None})


def _card(report: dict[str, Any]) -> str:
    recipe, data, dev = report["recipe"], report["data"], report["dev"]
    lines = [
        f"# {Path(recipe['output']).name}",
        "",
        f"A {recipe['task']} fine-tuned from `{recipe['model']}` by ecom_rag {report['versions']['ecom_rag']}:"
        f" loss `{recipe['loss']['name']}`, {report['steps']} steps over {data['rows']} rows"
        f" of {len(data['sources'])} files.",
    ]
    if dev:
        lines += [
            "",
            f"| | dev {dev['measure']} |",
            "|---|---|",
            f"| before | {dev['before']:.4f} |",
            f"| after | {dev['after']:.4f} |",
        ]
    lines += ["", "`train_report.json` holds all settings, figures, versions and what each epoch showed.", ""]
    return "\n".join(lines)
