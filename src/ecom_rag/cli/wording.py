"""The library's messages in the words of the command line.

The library names its arguments in backticks, e.g. "run again without `resume`". Here they become what the user of the
running command writes, ``--resume``; a name that the command does not have loses its backticks, and other code in
backticks stays as it is.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_NAME = re.compile(r"(?<![\w`])`([a-z]\w*)`(?![\w`])")
# What Python calls otherwise than the command line, and the parameters of commands that it may be, the first that is
# there; at the end what is said where none is.
_OTHERWISE: Mapping[str, tuple[tuple[str, ...], str]] = {
    "allow_most": (("yes",), "allow_most"),
    "cross_encoder": (("reranker", "rerank", "model"), "cross_encoder"),
    "encoder": (("model",), "encoder"),
    "first": (("ranks",), "first"),
    "fit_fusion": (("fit_fusion",), "ecom-rag evaluate --fit-fusion"),
    "last": (("ranks",), "last"),
    "reranker": (("reranker", "rerank", "model"), "reranker"),
    "top_k": (("top_k",), "--top-k"),  # of score and recall, where evaluate asks for more results
}
_options: Mapping[str, str] = {}


def remember(parameters: Iterable[Any], config: str | None = None, configured: Iterable[str] = ()) -> None:
    """Note what the user of a command writes for each of its parameters, until another command runs.

    Args:
        parameters: Those of the command, as click has them.
        config: The file of settings that the command reads.
        configured: The parameters whose values come from that file.
    """
    global _options
    options = {str(parameter.name): _option(parameter) for parameter in parameters}
    _options = options | {name: f"{config}: {name}" for name in configured}


def worded(message: str) -> str:
    """A message of the library as the user of the running command reads it."""
    return _NAME.sub(lambda found: _spelled(found[1]), message)


def _spelled(name: str) -> str:
    candidates, otherwise = _OTHERWISE.get(name, ((name,), name))
    return next((_options[own] for own in candidates if own in _options), otherwise)


def _option(parameter: Any) -> str:
    long = (option for option in parameter.opts if option.startswith("--"))
    return next(long, None) or parameter.metavar or str(parameter.name).upper()
