"""The page of an audit: what was found, with the texts, for the person who decides."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from ecom_rag.decision.audit import Audit
from ecom_rag.decision.audit_findings import KINDS
from ecom_rag.evaluation import page
from ecom_rag.evaluation.page import Section
from ecom_rag.files.records import Record

_MOST = 50  # findings of a kind that the page shows
_LARGE = 20  # pairs of labels that the table of conflicts shows
_TITLES: Mapping[str, str] = {
    "duplicate_conflict": "Near-duplicates with different labels",
    "conflict": "Labels that similar seeds contradict",
    "hit_and_wrong": "Seeds that are found for listings of another label",
    "near_innocent": "Seeds next to innocent ones, and the reverse",
    "no_evidence": "Seeds with nothing similar",
    "never_hit": "Seeds that no listing finds",
    "duplicate": "Near-duplicates with one label",
}
_PACKAGES = ("numpy", "scipy")


def as_html(found: Audit, *, made_by: str, data: str) -> str:
    """An audit as one self-contained page.

    Args:
        found: What ``audit`` gave.
        made_by: The command line or the Python call that gives it.
        data: Name of the bank or the file of seeds.
    """
    sections = [_summary(found), _labels(found)]
    by_kind: dict[str, list[Record]] = {}
    for one in found.findings:
        by_kind.setdefault(one["audit"]["kind"], []).append(one)
    for kind, title in _TITLES.items():
        if kind in by_kind:
            sections += _kind(kind, title, by_kind[kind])
    made = page.made_of(
        made_by, {"Data": f"{data}: {found.seeds} seeds with a label, in {found.campaigns} campaigns"}, _PACKAGES
    )
    return page.document("Audit of seeds", list(_said(found)), made, sections)


def _said(found: Audit) -> Iterator[str]:
    wrong = sum(found.counts.get(kind, (0, 0))[0] for kind in ("conflict", "duplicate_conflict"))
    share = wrong / max(found.campaigns, 1)
    yield (
        f"{wrong} of {found.campaigns} campaigns of seeds ({share:.1%}) have a label that other seeds contradict:"
        " look at these first."
    )
    yield "Nothing was removed. A finding is a reason to look, not a verdict: rare but right seeds are among them."


def _summary(found: Audit) -> Section:
    body = [
        [kind, said, *(f"{count}" for count in found.counts[kind])]
        for kind, said in KINDS.items()
        if kind in found.counts
    ]
    table = (
        page.table(["finding", "what it means", "campaigns", "seeds"], body, texts=2) if body else page.note("None.")
    )
    notes = "".join(page.note(f"Note: {note}.") for note in found.notes)
    aside = page.note("Of thin classes the number of classes stands for campaigns.") if body else ""
    return Section(2, "findings", "Findings", table + aside + notes)


def _labels(found: Audit) -> Section:
    ranked = sorted(found.classes, key=lambda one: (-one.campaigns, one.label))
    body = [
        [
            one.label + (" (innocent)" if one.innocent else ""),
            f"{one.seeds}",
            f"{one.campaigns}",
            f"{one.conflicts}",
            f"{one.missing or '–'}",
        ]
        for one in ranked
    ]
    head = ["label", "seeds", "campaigns", "in conflict", "campaigns missing"]
    said = "Missing: campaigns that a guarantee of a policy needs beyond these, if none of them is an error."
    return Section(2, "labels", "Labels", page.table(head, body) + page.note(said))


def _kind(kind: str, title: str, items: Sequence[Record]) -> Iterator[Section]:
    if kind == "conflict":
        yield Section(2, kind, title, _pairs(items))
        yield Section(3, f"{kind}-cases", "The clearest ones", _cases(items))
        return
    yield Section(2, kind, title, _cases(items))


def _pairs(items: Sequence[Record]) -> str:
    """Which labels are suggested in place of which, campaigns counted."""
    campaigns = {(said["campaign"], said["label"], said["suggested"]) for said in (one["audit"] for one in items)}
    counts = Counter((label, suggested) for _, label, suggested in campaigns)
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    body = [[label, suggested, f"{count}"] for (label, suggested), count in ranked[:_LARGE]]
    rest = sum(count for _, count in ranked[_LARGE:])
    more = page.note(f"{rest} campaigns of {len(ranked) - _LARGE} other pairs of labels.") if rest else ""
    return page.table(["label", "suggested", "campaigns"], body, texts=2) + more


def _cases(items: Sequence[Record]) -> str:
    """The first seed of each of the first campaigns."""
    first: dict[tuple[int, str], list[Record]] = {}
    for one in items:
        first.setdefault((one["audit"]["campaign"], one["audit"]["label"]), []).append(one)
    shown = "".join(_case(group) for group in list(first.values())[:_MOST])
    more = page.note(f"{len(first) - _MOST} more are in the output file.") if len(first) > _MOST else ""
    return f'<ol class="cases">{shown}</ol>{more}'


def _case(group: Sequence[Record]) -> str:
    one, said = group[0], group[0]["audit"]
    count = said.get("seeds", len(group))
    names = ", ".join(str(other["audit"]["seed"]) for other in group[:5])
    size = f", {count} seeds" if count > 1 else ""
    suggested = f' → <span class="right">{escape(said["suggested"])}</span>' if said["suggested"] else ""
    near = "".join(map(_near, said["because"]))
    return (
        f"<li><b>{escape(page.cut(one['text'])) or '(no text)'}</b><br>"
        f'<span class="wrong">{escape(said["label"])}</span>'
        f'{suggested} <span class="small">seed {escape(names)}{size}; {escape(said["why"])}</span>'
        f"{f'<ul>{near}</ul>' if near else ''}</li>"
    )


def _near(one: Mapping[str, Any]) -> str:
    return (
        f'<li><span class="small">{escape(one["label"])}, {escape(str(one["seed"]))}:</span>'
        f" {escape(page.cut(one['text']))}</li>"
    )
