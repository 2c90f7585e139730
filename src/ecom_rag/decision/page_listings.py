"""Sections of the report page: what the policy decides of the calibration listings, and what is wrong among it."""

from html import escape

import numpy as np

from ecom_rag.decision.figures import (
    REVIEW,
    Outcome,
    Tally,
    bins_of,
    calibration_error,
    largest,
    tally,
    worst,
)
from ecom_rag.decision.judged import Judged
from ecom_rag.decision.policy import Policy
from ecom_rag.evaluation import charts
from ecom_rag.evaluation.confusion import confusion
from ecom_rag.evaluation.labels import Votes
from ecom_rag.evaluation.page import Section, confusion_table, cut, note, table
from ecom_rag.files.identity import label_at
from ecom_rag.files.results import EVIDENCE

_CAMPAIGNS = 10  # of the largest
_WORST = 8
_SEEDS = 3  # of a side, for each wrong decision


def confusion_section(policy: Policy, found: Outcome) -> Section:
    """Own labels against what is decided, with review as a column.

    Args:
        policy: The rules.
        found: The calibration listings.
    """
    judged, labels = found.judged, policy.combiner.labels
    classes = tuple(sorted({*labels, *judged.labels}))
    number = {label: place for place, label in enumerate(classes)}
    one = judged.representative
    truth = np.array([number[label] for label in judged.labels], np.int64)[one]
    places = np.array([*(number[label] for label in labels), -1], np.int64)  # of REVIEW, the last
    votes = Votes(classes, truth, places[found.decided[one]], np.zeros((len(truth), len(classes))))
    told = "Rows: the label that a campaign has. Columns: what is decided of it. Numbers are calibration campaigns"
    return Section(
        2, "decisions", "Decisions", confusion_table(confusion(votes, none="review"), told, neutral="review")
    )


def worst_section(policy: Policy, found: Outcome) -> Section:
    """The wrong decisions that were surest, with the seeds that led to them.

    Args:
        policy: The rules.
        found: The calibration listings.
    """
    rows = worst(found, _WORST)
    if not rows:
        return Section(2, "wrong", "Wrong decisions", note("No campaign is decided wrongly."))
    total = tally(found, found.judged.representative).wrong
    told = note(
        f"The {len(rows)} surest of {total:,} campaigns that are decided wrongly. Read them: sometimes the label of the"
        " listing is what is wrong."
    )
    cases = "".join(_case(policy, found, row) for row in rows)
    return Section(2, "wrong", "Wrong decisions", f'{told}<ol class="cases">{cases}</ol>')


def _case(policy: Policy, found: Outcome, row: int) -> str:
    judged = found.judged
    result, own, decided = judged.results[row], judged.labels[row], policy.combiner.labels[int(found.decided[row])]
    threshold = policy.classes[decided].threshold
    key = policy.evidence.label_key
    metadata = result["topk_metadata"][: policy.evidence.top_k]
    named = [label_at("a seed found", one, key) for one in metadata]
    sides = {label: [place for place, one in enumerate(named) if one == label] for label in (decided, own)}
    shown = sorted(place for places in sides.values() for place in places[:_SEEDS])
    seeds = "".join(_seed(result, place, str(named[place]), right=named[place] == own) for place in shown)
    said = (
        f"labelled {own}, decided as {decided} with probability {judged.verdicts.highest[row]:.3f} (threshold"
        f" {threshold:.3f}); of {len(named)} seeds, {len(sides[decided])} are {decided} and {len(sides[own])} {own}"
    )
    return f'<li><b>{escape(cut(result["text"]))}</b> <span class="small">{escape(said)}</span><ul>{seeds}</ul></li>'


def _seed(result: dict[str, object], place: int, label: str, *, right: bool) -> str:
    texts, evidence = result["topk_seed"], result.get(EVIDENCE)
    assert isinstance(texts, list)
    ranks = f"rank {place + 1}"
    if isinstance(evidence, list):
        ranks += "".join(f", {route} {one['rank']}" for route, one in evidence[place].items())
    return (
        f'<li><span class="{"right" if right else "wrong"}">{escape(label)}</span> {escape(cut(str(texts[place])))}'
        f' <span class="small">({escape(ranks)})</span></li>'
    )


def campaigns_section(policy: Policy, found: Outcome) -> Section:
    """Listings and campaigns side by side, by what is decided.

    Args:
        policy: The rules.
        found: The calibration listings.
    """
    judged = found.judged
    kinds = [("all decided", found.automatic)]
    kinds += [(label, found.decided == place) for place, label in enumerate(policy.combiner.labels)]
    kinds.append(("review", found.decided == REVIEW))
    body, sure = [], []
    for name, chosen in kinds:
        if not chosen.any():
            continue
        rows, campaigns = tally(found, chosen), tally(found, chosen & judged.representative)
        most = int(np.unique(judged.campaigns[chosen], return_counts=True)[1].max())
        sides = [cell for one in (rows, campaigns) for cell in _counted(one)]
        body.append([name, *sides, f"{most:,}"])
        sure.append(name == "all decided")
    head = ["decided as", "listings", "wrong", "right", "campaigns", "wrong", "right", "largest campaign"]
    numbers, places = np.unique(judged.campaigns, return_inverse=True)
    pairs = {*zip(places.tolist(), judged.labels, strict=True)}
    mixed = len(pairs) - len(numbers)
    further = f" {mixed:,} times, texts of one campaign have a further label." if mixed else ""
    told = (
        "Left by listings, right by campaigns. Promises count campaigns, each by one of its texts, which its digest"
        f" chooses: copies are no evidence, and one wrong text sent 300 times would be 300 wrong listings.{further}"
    )
    content = table(head, body, sure=sure) + note(told)
    return Section(2, "campaigns", "Listings and campaigns", content)


def relatives_section(found: Outcome, related: Outcome | None) -> Section:
    """Texts without and with near-duplicates among the seeds.

    Args:
        found: Those without, on which the policy stands.
        related: Those with; ``None`` for none.
    """
    total = len(found.decided) + (0 if related is None else len(related.decided))
    if related is None:
        said = f"None of the {total:,} labelled listings has a near-duplicate among the seeds."
        return Section(2, "relatives", "Texts with relatives in the bank", note(said))
    body = []
    for name, one in (("without relatives: calibrated on", found), ("with relatives: left out", related)):
        judged = one.judged
        campaigns, own = tally(one, judged.representative), judged.representative
        right = (judged.verdicts.first == judged.truth)[own].mean()
        body.append(
            [
                name,
                f"{len(one.decided):,}",
                f"{len(one.decided) / total:.1%}",
                f"{campaigns.total:,}",
                f"{right:.1%}",
                f"{campaigns.coverage:.1%}",
                f"{campaigns.wrong:,}",
                _share(campaigns),
            ]
        )
    head = ["labelled texts", "listings", "share", "campaigns", "first label right", "decided", "wrong", "right"]
    content = table(head, body) + note(
        "A relative is a near-duplicate among the seeds. Such texts are easier, and a promise that counted them would"
        " hold for copies of what the bank knows and not for new texts: they are no part of any promise. First label"
        " right: the most probable label is the text's own, whatever its probability. Decided, wrong, right: by"
        " campaigns."
    )
    return Section(2, "relatives", "Texts with relatives in the bank", content)


def largest_section(policy: Policy, found: Outcome) -> Section:
    """The campaigns with the most listings.

    Args:
        policy: The rules.
        found: The calibration listings.
    """
    names = {REVIEW: "review", **dict(enumerate(policy.combiner.labels))}
    body = []
    for one in largest(found, _CAMPAIGNS):
        decided = one.decided.most_common()
        told = names[decided[0][0]] if len(decided) == 1 else ", ".join(f"{names[kind]} ({n:,})" for kind, n in decided)
        body.append([cut(one.text), ", ".join(one.labels), told, f"{one.listings:,}"])
    content = note("No campaign has more than one listing.")
    if body:
        content = table(["text", "labelled", "decided as", "listings"], body, texts=3)
    return Section(2, "largest", "Largest campaigns", content)


def reliability_section(judged: Judged) -> Section:
    """Whether probabilities are what they say.

    Args:
        judged: The calibration listings.
    """
    bins = bins_of(judged)
    if not bins:
        return Section(2, "reliability", "Reliability", note("No campaign has a candidate label."))
    points, body = [], []
    for one in bins:
        low, high = one.interval
        cells = [f"{one.low:g} to {one.high:g}", f"{one.campaigns:,}", f"{one.probability:.3f}", f"{one.right:.3f}"]
        body.append([*cells, f"{low:.3f} to {high:.3f}"])
        told = f"{cells[0]}: {cells[1]} campaigns, mean probability {cells[2]}, share right {cells[3]}"
        points.append(charts.Point(one.probability, one.right, low, high, told))
    plot = charts.reliability(
        points,
        "probability of the most probable label",
        "share that is right",
        "Probability and share that is right, with 95% intervals; dashed: both are equal",
    )
    content = (
        plot
        + table(["probability", "campaigns", "mean", "right", "95% interval"], body)
        + note(
            f"Over calibration campaigns; on average probability and share differ by {calibration_error(bins):.3f}."
            " Intervals: Clopper and Pearson. Thresholds need no such agreement; people who read probabilities do."
        )
    )
    return Section(2, "reliability", "Reliability", content)


def _counted(counted: Tally) -> list[str]:
    return [f"{counted.total:,}", f"{counted.wrong:,}" if counted.decided else "–", _share(counted)]


def _share(counted: Tally) -> str:
    return "–" if counted.precision is None else f"{counted.precision:.1%}"
