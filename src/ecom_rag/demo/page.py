"""The demo's page: every decision with its evidence, in one file to open."""

from collections.abc import Iterator, Sequence
from html import escape

from ecom_rag.demo.outcome import (
    ACTIONS,
    LANGUAGES,
    Found,
    Outcome,
    action_of,
    groups,
    kept,
    promises,
    reason_of,
    reasons,
    right,
    seeds_of,
    tally,
    terms,
)
from ecom_rag.evaluation.page import Section, cut, document, made_of, note, table
from ecom_rag.files.records import Record

_FOR, _AGAINST = 3, 2  # seeds shown of a listing
_PACKAGES = ("numpy", "scipy")  # that the figures depend on
_TITLES = {
    "block": "Blocked: a prohibited label, with a promise",
    "innocent": "Innocent: passed without a person, with a promise",
    "review": "Review: a person must look",
}


def as_html(outcome: Outcome) -> str:
    """The page.

    Args:
        outcome: The decided listings.

    Returns:
        HTML, self-contained and without scripts.
    """
    found = tally(outcome.decided)
    said = [
        f"Of {found.listings} sample listings {found.decided} are decided without a person"
        f" ({found.actions['block']} blocked, {found.actions['innocent']} passed as innocent) and"
        f" {found.actions['review']} go to review. Of the decided ones {found.errors} are wrong.",
        _promised(outcome),
    ]
    data = {
        "Data": f"{outcome.seeds} judged seeds, {len(outcome.calibration.judged.labels)} labelled listings to make the"
        f" policy, {found.listings} listings to decide; English and Chinese, all written for this project",
        "Routes": f"{', '.join(outcome.routes)}, with the starter encoder, --deobfuscate and --fusion weighted",
    }
    wrong = [one for one in outcome.decided if action_of(one) != "review" and not right(one)]
    sections = [_promise_section(outcome), _totals(outcome), _labels(outcome)]
    if wrong:
        sections.append(Section(2, "wrong", "Wrong decisions", _cases(wrong)))
    sections += [one for action in ACTIONS.values() for one in _listings(outcome, action)]
    return document("Demo: decisions with a promise", said, made_of("ecom-rag demo", data, _PACKAGES), sections)


def _promised(outcome: Outcome) -> str:
    guarantee = outcome.policy.guarantee
    own = promises(outcome.policy)
    return f"Promised, with {1 - guarantee.delta:.0%} confidence each: {own['block']}; {own['innocent']}."


def _promise_section(outcome: Outcome) -> Section:
    lines = "".join(f"<dt>{name}</dt><dd>{escape(said)}</dd>" for name, said in promises(outcome.policy).items())
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in terms(outcome))
    alone = note("A promise is about all decisions of its kind together; nothing is promised of a single listing.")
    return Section(2, "promise", "What is promised", f'<dl class="made">{lines}</dl>{told}{alone}')


def _totals(outcome: Outcome) -> Section:
    head = ["language", "kind", "listings", *ACTIONS.values(), "decided", "wrong", "first guess"]
    body, sure = [], []
    for language, kind, own in groups(outcome):
        found = tally(own)
        counts = [str(found.actions[action]) for action in ACTIONS.values()]
        wrong = f"{found.errors} ({found.errors / found.decided:.0%})" if found.decided else "–"
        guessed = f"{found.guessed}/{found.listings}"
        decided = f"{found.decided / found.listings:.0%}"
        body.append([language, kind or "all", str(found.listings), *counts, decided, wrong, guessed])
        sure.append(not kind)
    why = "; ".join(f"{count} because {reason}" for reason, count in reasons(outcome.decided))
    told = (
        "Decided: the share that needs no person. Wrong: decided as another label than the listing's own. First guess:"
        " where the most probable label, before any threshold, is right. Plain: prohibited, in plain words. Near miss:"
        " harmless, but worded like a forbidden listing. Evasive: prohibited, in disguised spelling."
    )
    content = table(head, body, texts=2, sure=sure) + note(told)
    content += "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in kept(outcome)) + "</ul>"
    content += f"<p>Of so few listings, a share can miss its promise by chance.</p><p>{escape(f'Review: {why}.')}</p>"
    return Section(2, "outcome", "What came out", content)


def _labels(outcome: Outcome) -> Section:
    policy, decided = outcome.policy, outcome.decided
    head = ["label", "threshold", "promise", "listings", "decided rightly", "in review", "wrongly decided as it"]
    body = []
    for label, rule in sorted(policy.classes.items(), key=lambda item: (item[0] in policy.innocent, item[0])):
        own = [one for one in decided if one["metadata"]["label"] == label]
        wrong = sum(
            one["decision"]["label"] == label and not right(one) for one in decided if action_of(one) != "review"
        )
        threshold = "–" if rule.threshold is None else f"{rule.threshold:.3f}"
        promise = "none" if rule.threshold is None else "shared" if rule.pool else "its own"
        reviewed = sum(action_of(one) == "review" for one in own)
        rightly = sum(action_of(one) != "review" and right(one) for one in own)
        body.append([label, threshold, promise, *map(str, (len(own), rightly, reviewed, wrong))])
    told = "Threshold: the probability from which the label is given without a person. Listings: those that have it."
    return Section(2, "labels", "By label", table(head, body) + note(told))


def _listings(outcome: Outcome, action: str) -> Iterator[Section]:
    yield Section(2, action, _TITLES[action], "")
    for language, name in LANGUAGES.items():
        own = [one for one in outcome.of(language) if action_of(one) == action]
        if own:
            yield Section(3, f"{action}-{language}", f"{name}, {len(own)}", _cases(own))


def _cases(listings: Sequence[Record]) -> str:
    return f'<ol class="cases">{"".join(map(_case, listings))}</ol>'


def _case(record: Record) -> str:
    decision, own = record["decision"], record["metadata"]["label"]
    if action_of(record) == "review":
        told = f"review: {escape(reason_of(decision))} – its own label is {escape(own)}"
    else:
        kind, mark = ("right", "right") if right(record) else ("wrong", f"wrong, its own label is {own}")
        told = (
            f"{action_of(record)}: {escape(decision['label'])}, probability {decision['probability']:.3f}, threshold"
            f' {decision["threshold"]:.3f} – <span class="{kind}">{escape(mark)}</span>'
        )
    seeds = "".join(_seed(one, "for") for one in seeds_of(record, "because")[:_FOR])
    seeds += "".join(_seed(one, "against") for one in seeds_of(record, "against")[:_AGAINST])
    return f"<li><b>{escape(cut(record['text']))}</b><br>{told}<ul>{seeds}</ul></li>"


def _seed(found: Found, side: str) -> str:
    kind = "right" if side == "for" else "wrong"
    return (
        f'<li><span class="{kind}">{side}</span> {escape(cut(found.text))}'
        f' <span class="small">({escape(found.label)}; {escape(found.by())})</span></li>'
    )
