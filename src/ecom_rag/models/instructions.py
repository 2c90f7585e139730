"""Instructions: what stands around a text before it is encoded, and the tasks and examples that are put into it.

An instruction is a prefix, or a whole with ``{text}`` in the place of the text. A *form* is an instruction with
``{task}`` in the place of the task's description, as models tuned on instructions have it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ecom_rag.arguments import listed
from ecom_rag.errors import UsageError

TEXT, TASK = "{text}", "{task}"

Example = Mapping[str, str]

# English, as the models were tuned on; a name stands for its description wherever a task is asked for.
TASKS = {
    "governance": "Given a product listing, retrieve judged listings that break the same rule in the same way",
    "prohibited": "Given a product listing, retrieve listings of the same prohibited or restricted goods",
    "claims": "Given a product listing, retrieve listings that make the same misleading or illegal claim",
    "fraud": "Given a product listing, retrieve listings that use the same fraud, or lead buyers off the platform",
    "duplicates": "Given a product listing, retrieve listings of the same product",
    "category": "Given a product listing, retrieve listings of the same category of products",
    "search": "Given a query of a shopper, retrieve listings of products that answer it",
}
DEFAULT_TASK = "governance"


def split(instruction: str) -> tuple[str, str]:
    """What an instruction puts before a text, and what behind it."""
    before, found, behind = instruction.rpartition(TEXT)
    return (before, behind) if found else (instruction, "")


def written(form: str, task: str = DEFAULT_TASK, examples: Sequence[Example] = ()) -> str:
    """A form with its task, after examples of the task where there are some (Li et al. 2024, arXiv:2409.15700).

    Args:
        form: An instruction with ``{task}``.
        task: Description, or a name of ``TASKS``.
        examples: What ``examples_of`` gives.

    Raises:
        UsageError: Examples for a form that ends with the text: only models tuned on answers behind it read any.
    """
    before, behind = split(form)
    if examples and not behind:
        raise UsageError(
            f"{len(examples)} in-context examples were given, but the model's instruction {form!r} has no place for a"
            " response; leave them out, or use a model tuned on examples (bge-en-icl)"
        )
    task = TASKS.get(task, task)
    shown = [
        before.replace(TASK, example.get("instruct", task)) + example["query"] + behind + example["response"] + "\n\n"
        for example in examples
    ]
    start = "".join(shown) + before.replace(TASK, task)
    return start if not behind and TEXT not in start else start + TEXT + behind


def examples_of(values: Any, name: str) -> list[Example]:
    """In-context examples, checked.

    Args:
        values: Mappings with ``query``, ``response`` and optionally ``instruct`` (the task, where it is another one).
        name: Of the argument or of the file, for messages.

    Raises:
        UsageError: Something else.
    """
    found = listed(values, name, "mappings with query and response")
    for number, example in enumerate(found, 1):
        keys = set(example) if isinstance(example, Mapping) else set()
        if not {"query", "response"} <= keys <= {"instruct", "query", "response"} or not all(
            isinstance(text, str) and text.strip() for text in example.values()
        ):
            shown = ", ".join(map(str, keys)) if keys else repr(example)[:60]
            raise UsageError(
                f"{name}: example {number} has {shown}; expected texts under query and response, and optionally"
                " instruct"
            )
    return found
