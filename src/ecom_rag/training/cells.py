"""Rows of training data by class and source, as numbers."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ecom_rag.errors import UsageError
from ecom_rag.files.identity import as_label
from ecom_rag.training.schedule import Integers


class Named(NamedTuple):
    """A division of the rows: ``(rows,)`` the number of each row's part, and the names of the parts."""

    of_row: Integers
    names: list[str]


@dataclass(frozen=True, slots=True)
class Cells:
    """Rows by class and source. A cell, which is what is drawn, holds the rows of one class in one source.

    Args:
        classes: The division by class.
        sources: By source.
        cells: By both; a cell is named by its class, after its source where there are sources.
        by_source: The cells of each source.
    """

    classes: Named
    sources: Named
    cells: Named
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
    by_class = _classes(labels, "labels", rows)
    length, classes = len(by_class.of_row), len(by_class.names)
    files = _numbers(np.zeros(length) if sources is None else sources, "sources", length)
    keys, of_row = np.unique(files.of_row * classes + by_class.of_row, return_inverse=True)
    source_of, class_of = np.divmod(keys, classes)
    names = [by_class.names[number] for number in class_of]
    if sources is not None:
        names = [f"{files.names[number]}/{name}" for number, name in zip(source_of, names, strict=True)]
    by_source = [np.flatnonzero(source_of == number) for number in range(len(files.names))]
    return Cells(by_class, files, Named(of_row, names), by_source)


def check(holds: bool, message: str) -> None:
    """Raise ``UsageError`` where something does not hold."""
    if not holds:
        raise UsageError(message)


def _numbers(values: ArrayLike, name: str, length: int | None = None) -> Named:
    """Values as numbers from 0 in sorted order, and their names."""
    array = np.asarray(values)
    check(array.ndim == 1 and len(array) > 0, f"{name}: found shape {array.shape}; expected one entry a row")
    check(length is None or len(array) == length, f"{name}: {len(array)} entries for {length} rows")
    names, numbers = np.unique(array, return_inverse=True)
    return Named(numbers.astype(np.int64), [str(name) for name in names])


def _classes(values: ArrayLike, name: str, length: int | None = None) -> Named:
    """As ``_numbers`` for labels: ``1``, ``1.0`` and ``"1"`` are one."""
    numbers, names = _numbers(values, name, length)
    labels = [as_label(one) or "" for one in names]
    check("" not in labels, f"{name}: an entry is blank; expected a label for every row")
    if len(set(labels)) == len(labels):
        return Named(numbers, labels)  # in the order of the values: numbers by size
    distinct, places = np.unique(labels, return_inverse=True)
    return Named(places.astype(np.int64)[numbers], [str(label) for label in distinct])


def parents_of(parents: ArrayLike, cells: Named) -> Integers:
    """The one parent of each class.

    Args:
        parents: ``(rows,)`` parent of each row.
        cells: The division of the rows by class.

    Raises:
        UsageError: A class has several.
    """
    classes, names = cells
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
