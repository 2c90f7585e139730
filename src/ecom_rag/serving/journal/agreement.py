"""How far two people agree who saw the same texts without knowing of each other."""

import sqlite3
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the items that had a second look.

    Args:
        pairs: Items with two verdicts.
        share: Of them, those where both are one label, 0 to 1; ``None`` without pairs.
        kappa: Cohen's kappa: 1 for full agreement, 0 for what chance gives; ``None`` where chance alone gives full
            agreement, or without pairs.
        disagreements: How often a first label stood beside a second one, the most frequent first.
    """

    pairs: int
    share: float | None
    kappa: float | None
    disagreements: list[tuple[str, str, int]]


def agreement(db: sqlite3.Connection) -> Agreement:
    """Compare first and second verdicts (Cohen, 1960: A coefficient of agreement for nominal scales).

    ``kappa = (observed - expected) / (1 - expected)``, with the agreement expected of two people who give each label as
    often as these do, but independently.
    """
    table = db.execute(
        "SELECT verdict_label, second_label, COUNT(*) FROM items WHERE second = 2 GROUP BY verdict_label, second_label"
    ).fetchall()
    return agreement_of(table)


def agreement_of(table: list[tuple[str, str, int]]) -> Agreement:
    """As ``agreement``, of the number of pairs for each first and second label."""
    total = sum(count for _, _, count in table)
    if not total:
        return Agreement(0, None, None, [])
    first: Counter[str] = Counter()
    second: Counter[str] = Counter()
    for one, other, count in table:
        first[one] += count
        second[other] += count
    same = sum(count for one, other, count in table if one == other)
    by_chance = sum(first[label] * second[label] for label in first)
    whole = total * total
    kappa = None if by_chance == whole else (same * total - by_chance) / (whole - by_chance)
    apart = sorted((row for row in table if row[0] != row[1]), key=lambda row: (-row[2], row[0], row[1]))
    return Agreement(total, same / total, kappa, apart)
