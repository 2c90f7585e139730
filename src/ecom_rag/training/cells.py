"""Rows of training data by class and source, as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ecom_rag.errors import UsageError
from ecom_rag.files.identity import as_label
from ecom_rag.training.schedule import Integers


@dataclass(frozen=True, slots=True)
class Cells:
    """Rows by class and source. A cell, which is what is drawn, holds the rows of one class in one source.

    Args:
        label: ``(rows,)`` class of each row.
        label_names: Of the classes.
        source: ``(rows,)`` source of each row.
        source_names: Of the sources.
        of_row: ``(rows,)`` cell of each row.
        names: Of the cells: the class, after its source where there are sources.
        by_source: The cells of each source.
    """

    label: Integers
    label_names: list[str]
    source: Integers
    source_names: list[str]
    of_row: Integers
    names: list[str]
    by_source: list[Integers]


def cells_of(labels: ArrayLike, sources: ArrayLike | None, rows: int | None = None) -> Cells:
    """Rows by class and source.

    Args:
        labels: ``(rows,)`` class of each row.
        sources: ``(rows,)`` source of each row; by default all are of one.
        rows: How many are expected.

    Raises:
        UsageError: Arrays that do not fit each other, or a blank label.
    """
    label, label_names = _classes(labels, "labels", rows)
    source, source_names = _numbers(np.zeros(len(label)) if sources is None else sources, "sources", len(label))
    keys, of_row = np.unique(source * len(label_names) + label, return_inverse=True)
    source_of, label_of = np.divmod(keys, len(label_names))
    names = [label_names[number] for number in label_of]
    if sources is not None:
        names = [f"{source_names[number]}/{name}" for number, name in zip(source_of, names, strict=True)]
    by_source = [np.flatnonzero(source_of == number) for number in range(len(source_names))]
    return Cells(label, label_names, source, source_names, of_row, names, by_source)


def check(holds: bool, message: str) -> None:
    """Raise ``UsageError`` where something does not hold."""
    if not holds:
        raise UsageError(message)


def _numbers(values: ArrayLike, name: str, length: int | None = None) -> tuple[Integers, list[str]]:
    """Values as numbers from 0 in sorted order, and their names."""
    array = np.asarray(values)
    check(array.ndim == 1 and len(array) > 0, f"{name}: found shape {array.shape}; expected one entry a row")
    check(length is None or len(array) == length, f"{name}: {len(array)} entries for {length} rows")
    names, numbers = np.unique(array, return_inverse=True)
    return numbers.astype(np.int64), [str(name) for name in names]


def _classes(values: ArrayLike, name: str, length: int | None = None) -> tuple[Integers, list[str]]:
    """As ``_numbers`` for labels: ``1``, ``1.0`` and ``"1"`` are one."""
    numbers, names = _numbers(values, name, length)
    labels = [as_label(one) or "" for one in names]
    check("" not in labels, f"{name}: an entry is blank; expected a label for every row")
    if len(set(labels)) == len(labels):
        return numbers, labels  # in the order of the values: numbers by size
    distinct, places = np.unique(labels, return_inverse=True)
    return places.astype(np.int64)[numbers], [str(label) for label in distinct]


def parents_of(parents: ArrayLike, classes: Integers, names: Sequence[str]) -> Integers:
    """The one parent of each class.

    Args:
        parents: ``(rows,)`` parent of each row.
        classes: ``(rows,)`` class of each row.
        names: Of the classes, for the message.

    Raises:
        UsageError: A class has several.
    """
    numbers, parent_names = _classes(parents, "parents", len(classes))
    found = np.zeros(len(names), np.int64)
    found[classes] = numbers
    odd = np.flatnonzero(found[classes] != numbers)
    if len(odd):
        row = odd[0]
        raise UsageError(
            f"row {row}: class {names[classes[row]]} is in group {parent_names[numbers[row]]} here and in"
            f" {parent_names[found[classes[row]]]} elsewhere; a class has one policy group"
        )
    return found
