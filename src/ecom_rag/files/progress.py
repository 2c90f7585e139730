"""How far long work is, told to whoever draws it."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with a stage name, how much more is done, and the total where it is known."""


def stage(progress: Progress | None, name: str, total: int | None) -> Callable[[int], None]:
    """``progress`` bound to one stage, which begins here; does nothing where there is none."""
    if progress is None:
        return lambda done: None
    progress(name, 0, total)
    return lambda done: progress(name, done, total)
