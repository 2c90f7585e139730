"""How far long work is, told to whoever draws it."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with a stage name, how much more is done, and the total where it is known."""


def stage(progress: Progress | None, name: str, total: int | None) -> Callable[[int], None]:
    """``progress`` bound to one stage; does nothing where there is none."""
    return (lambda done: None) if progress is None else (lambda done: progress(name, done, total))
