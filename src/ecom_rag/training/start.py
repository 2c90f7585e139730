"""Training from Python: a recipe in any of its forms, and the packages that training needs."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from ecom_rag import arguments
from ecom_rag.arguments import PathLike, flag
from ecom_rag.errors import UsageError
from ecom_rag.training.recipe import Recipe, make_recipe, read_recipe

_PACKAGES = ("sentence_transformers", "datasets", "accelerate", "peft", "matplotlib")
INSTALL = (
    "training needs packages that are not installed ({}); install them in the checkout with"
    ' pip install -c constraints.txt -e ".[train]"'
)


def train(
    recipe: Recipe | Mapping[str, Any] | PathLike,
    *,
    resume: bool = False,
    progress: Callable[[int, int, dict[str, float], bool], None] | None = None,
) -> dict[str, Any]:
    """Fine-tune an embedder or a reranker; docs/training.md lists the keys of a recipe.

    Args:
        recipe: A dict with the keys and tables of a recipe and ``task`` (``embedder`` or ``reranker``), a ``Recipe``,
            or the path of a TOML file that says its ``task``. Paths in it are relative to the current folder.
        resume: Continue an interrupted run of the same recipe and data, where there is one.
        progress: Called with the step, the number of steps, the figures so far, and whether it was just validated.

    Returns:
        The report, as in ``train_report.json`` of the output folder: ``steps``, ``seconds``, ``dev`` with the measure
        ``before`` and ``after`` (higher is better) where there is validation data, ``data``, ``sampling``, ``log``.

    Raises:
        UsageError: A recipe that makes no sense, or the ``train`` extra is not installed; nothing was begun.
        RecordError: A line of the data that cannot be trained on; says where and why.
        ModelError: The model to start from cannot be found, read or trained as asked.
        ResumeError: The interrupted run had another recipe or other data.
    """
    asked = _checked(recipe)
    flag(resume, "resume")
    arguments.function(progress, "progress", "nothing", optional=True)
    require_extra()
    from ecom_rag.training import fit

    return fit.train(asked, resume=resume, progress=progress)


def require_extra() -> None:
    """Raise ``UsageError`` where the ``train`` extra is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(INSTALL.format(", ".join(missing)))


def _checked(recipe: Recipe | Mapping[str, Any] | PathLike) -> Recipe:
    if isinstance(recipe, Recipe):  # made in Python, so perhaps of values that TOML could not bring
        return make_recipe(recipe.as_dict(), where=recipe.where, given=recipe.given)
    return make_recipe(recipe) if isinstance(recipe, Mapping) else read_recipe(recipe)
