"""Whether two checkpoints are the same network with other numbers in it; if not, what the difference is.

What changes the vectors is compared as encoding has it: tensors by their plain names, texts by the ids they become, and
what the files of a folder say together, not file by file.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ecom_rag.errors import ModelError
from ecom_rag.merging import settings
from ecom_rag.merging.files import NETWORK, Opened, Part
from ecom_rag.models.checkpoints.tokens import Tokenizer

_PROBES = (
    "Genuine LEATHER wallet №5, 50%OFF!",
    "全新iPhone手机壳，Ａ４大小…",
    "café naïve Straße ﬁ İstanbul",
    "  two  spaces\tand a\nline ",
    "zero\u200bwidth ｶﾞ 각 ① ½ 😀👍🏽",
    "don't e-mail: a.b@c.de #tag $9.99 \u00a0x\u3000y",
)
_VOCABULARY_PROBES = 400  # tokens, in lower and in upper case
# Of an encoder: the pooler, and heads of pre-training.
_UNUSED = re.compile(r"(pooler|cls|lm_head)\.")
_COUNTED = re.compile(r"(^|\.)position_ids$")  # positions are counted, whatever is stored
_NAMED = 3


def check_alike(first: Opened, other: Opened) -> None:
    """Raise unless two checkpoints can be merged.

    Args:
        first: The reference.
        other: The model that is checked.

    Raises:
        ModelError: Names the difference, with the first few cases and how many there are.
    """
    differences = chain(
        _parts(first, other),
        settings.differences(first, other),
        _tokenizers(first.folder, other.folder),
    )
    for difference in differences:
        raise ModelError(f"{other.name} and {first.name} cannot be merged: {difference}")


def is_shared(key: str, parts: Sequence[Part]) -> bool:
    """Whether all models have a tensor in one shape; else it is one that nothing uses, and the reference's is kept."""
    return all(key in part for part in parts) and len({part.shape(key) for part in parts}) == 1


def _parts(first: Opened, other: Opened) -> Iterator[str]:
    if first.is_reranker != other.is_reranker:
        yield "one is a reranker, the other an encoder"
    if first.parts.keys() != other.parts.keys():
        yield f"{_sets(set(first.parts), set(other.parts), 'parts')}; both must have the same heads and modules"
    for name, part in first.parts.items():
        yield from _tensors(name, part, other.parts[name], reranker=first.is_reranker or other.is_reranker)


def _tensors(name: str, first: Part, other: Part, *, reranker: bool) -> Iterator[str]:
    needed, found = (_used(part, reranker=reranker) for part in (first, other))
    if needed != found:
        sides = _sets(needed, found, "tensors")
        yield f"{name} has other tensors, {sides}; expected two checkpoints of one architecture"
    shapes = [key for key in sorted(needed) if first.shape(key) != other.shape(key)]
    if shapes:
        cases = ", ".join(f"{key} {list(other.shape(key))} for {list(first.shape(key))}" for key in shapes[:_NAMED])
        yield (
            f"{name} has other shapes in {len(shapes)} tensors ({cases}); expected two checkpoints of one architecture"
            " and vocabulary"
        )


def _used(part: Part, *, reranker: bool) -> set[str]:
    """The tensors that outputs depend on."""
    return {
        key
        for key in part.keys()  # noqa: SIM118
        if part.dtype(key).is_floating_point and not _COUNTED.search(key) and (reranker or not _UNUSED.match(key))
    }


def _tokenizers(first: Path, other: Path) -> Iterator[str]:
    ours, theirs = backend_of(first), backend_of(other)
    left, right = ours.get_vocab(with_added_tokens=True), theirs.get_vocab(with_added_tokens=True)
    if left != right:
        moved = [token for token, number in left.items() if right.get(token, number) != number]
        if left.keys() == right.keys():
            cases = ", ".join(f"{token!r} {right[token]} for {left[token]}" for token in sorted(moved)[:_NAMED])
            what = f"{len(moved)} tokens have other numbers ({cases})"
        else:
            what = _sets(set(left), set(right), "tokens")
        yield f"their vocabularies differ, {what}; weights are merged token by token"
    names = sorted(left, key=lambda token: left[token])
    known = [token.removeprefix("##").removeprefix("▁") for token in names[:: len(names) // _VOCABULARY_PROBES + 1]]
    texts = [*_PROBES, *known, *(token.upper() for token in known)]
    for one, another in zip(_readings(first, ours, texts), _readings(other, theirs, texts), strict=True):
        for text, mine, yours in zip(texts, one, another, strict=True):
            if mine != yours:
                yield (
                    f"their tokenizers read {text!r} differently (ids {yours[:6]} for {mine[:6]}), e.g. one"
                    " lower-cases; use one tokenizer"
                )
    before, after = _layout(Tokenizer(first)), _layout(Tokenizer(other))
    for key in before:
        if before[key] != after[key]:
            yield f"their tokenizers differ in {key}, {after[key]} for {before[key]}; use one tokenizer"


def _readings(folder: Path, backend: Any, texts: Sequence[str]) -> Iterator[list[list[int]]]:
    """The ids of texts: by ``tokenizer.json`` alone, as other programs may read it; as we encode; and cut short."""
    yield [encoding.ids for encoding in backend.encode_batch(list(texts), add_special_tokens=False)]
    tokenizer = Tokenizer(folder)
    for limit in (512, 2):
        found = tokenizer.ids(texts, limit)
        yield [found[row].tolist() for row in range(len(texts))]


def _layout(tokenizer: Tokenizer) -> dict[str, Any]:
    special = {
        f"the special tokens of a {name}": [
            layout.prefix.tolist(),
            layout.middle.tolist(),
            layout.suffix.tolist(),
            layout.document_type,
        ]
        for name, layout in (("text", tokenizer.single), ("pair", tokenizer.pair))
    }
    return {
        **special,
        "the padding token": tokenizer.pad_id,
        "token types": tokenizer.uses_token_types,
        "the tokens without a weight": tokenizer.unweighted_ids.tolist(),
    }


def backend_of(folder: Path) -> Any:
    """The tokenizer of ``tokenizer.json``.

    Raises:
        ModelError: There is none, or it cannot be read.
    """
    from tokenizers import Tokenizer as Backend

    path = folder / "tokenizer.json"
    if not path.exists():
        raise ModelError(
            f"{folder}: has no tokenizer.json, so it cannot be checked that both models read texts the same way; save a"
            " fast tokenizer beside the weights"
        )
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:
        raise ModelError(f"{path}: cannot be read ({str(error)[:100]})") from None
    backend.no_padding()
    backend.no_truncation()
    return backend


def _sets(expected: set[str], found: set[str], what: str) -> str:
    """What one has and the other has not: how many, and the first few."""
    sides = []
    for word, keys in (("lacks", expected - found), ("has besides", found - expected)):
        if keys:
            names = [f"{key} ({NETWORK})" if key == NETWORK else repr(key) for key in sorted(keys)[:_NAMED]]
            more = ", ..." if len(keys) > _NAMED else ""
            sides.append(f"it {word} {len(keys)} {what} ({', '.join(names)}{more})")
    return " and ".join(sides)
