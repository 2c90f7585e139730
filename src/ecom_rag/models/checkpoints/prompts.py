"""What a checkpoint's folder, or its family, puts around queries and passages."""

import re
from collections.abc import Sequence
from pathlib import Path

from ecom_rag.errors import ModelError, UsageError
from ecom_rag.models.checkpoints.folder import read_object
from ecom_rag.models.families import Family
from ecom_rag.models.instructions import TASK, TEXT, Example, written

_FILE = "config_sentence_transformers.json"
# The two ways in which prompts of models tuned on instructions are written.
_FORM = re.compile(r"(Instruct: )(.+)(\nQuery: ?)|(<instruct>)(.+)(\n<query>)")


def own_prompts(folder: Path) -> tuple[str, str, bool]:
    """Query and passage prompt, and whether the folder names any, be it an empty one.

    A side without a prompt of its own gets the default prompt, as in ``SentenceTransformer.encode``.

    Raises:
        ModelError: The default prompt is missing, or a prompt holds what means the text here.
    """
    settings = read_object(folder / _FILE)
    prompts = settings.get("prompts") or {}
    default = settings.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(
            f"{folder / _FILE}: default_prompt_name {default!r} is not among its prompts; restore the checkpoint's file"
        )
    common = prompts.get(default) or ""
    query = prompts.get("query", common) or ""
    passage = next((prompts[name] for name in ("passage", "document", "corpus") if name in prompts), common) or ""
    for prompt in (query, passage):
        if TEXT in prompt:
            raise ModelError(
                f"{folder / _FILE}: the prompt {prompt!r} holds {TEXT}, which is not supported; expected a prefix"
            )
    told = default is not None or any(name in prompts for name in ("query", "passage", "document", "corpus"))
    return query, passage, told


def with_task(folder: Path, family: Family | None, task: str, examples: Sequence[Example]) -> str:
    """The query instruction for a task, in the form of the family, else of the folder's own prompts.

    Args:
        folder: The checkpoint.
        family: The one that its name tells.
        task: Description, or a name of ``instructions.TASKS``.
        examples: In-context examples.

    Raises:
        UsageError: Neither says in which form the model reads a task; or examples that it has no place for.
    """
    prompts = read_object(folder / _FILE).get("prompts") or {}
    matches = (_FORM.fullmatch(prompt or "") for prompt in prompts.values())
    forms = [family.query_instruction] if family is not None else []
    for start, _, end in ([part for part in match.groups() if part] for match in matches if match):
        forms.append(start + TASK + end + TEXT)
    form = next((form for form in forms if TASK in form), None)
    if form is None:
        raise UsageError(
            f"neither the files nor the name of {folder.name} say in which form it reads a task; write the whole query"
            f" instruction instead, e.g. 'Instruct: ...\\nQuery: {TEXT}'"
        )
    return written(form, task, examples)
