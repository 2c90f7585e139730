"""What the demo prints: for a terminal of 100 columns and a reader with one minute."""

import textwrap
import unicodedata
from pathlib import Path

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
from ecom_rag.files.records import Record
from ecom_rag.text.printing import printable

_COLUMNS = 100
_LISTING, _SEED = 84, 50  # terminal columns of their texts
_FOR, _AGAINST = 2, 1  # seeds shown of a listing
_EVASIVE = 2  # shown of each language


def show(outcome: Outcome, target: Path, *, seconds: float, show_all: bool) -> None:
    """Print it all.

    Args:
        outcome: The decided listings.
        target: The folder that was written.
        seconds: That it took.
        show_all: Show every listing instead of some.
    """
    sizes = " and ".join(f"{len(outcome.of(one))} {name}" for one, name in LANGUAGES.items())
    print(
        f"{sizes} listings, compared with {outcome.seeds} judged texts (seeds) and decided in {seconds:.0f} s."
        "\nWhat is promised:\n"
    )
    for action, promise in promises(outcome.policy).items():
        print(f"  {action:9} {promise}")
    print()
    for sentence in terms(outcome):
        print(textwrap.fill(sentence, _COLUMNS))
    _print_totals(outcome)
    print("\nAll decisions:\n" if show_all else "\nSome decisions, with the seeds that speak for and against them:\n")
    for record in outcome.decided if show_all else _some(outcome):
        _print_listing(record)
    _print_evasive(outcome)
    _print_files(outcome, target)


def _print_totals(outcome: Outcome) -> None:
    print("\nWhat came out:\n")
    head = "".join(f"{name:>10}" for name in ACTIONS.values())
    print(f"  {'':19}{'listings':>10}{head}{'decided':>9}{'wrong':>7}{'first guess right':>19}")
    for language, kind, own in groups(outcome):
        found = tally(own)
        cells = "".join(f"{found.actions[action] or '':>10}" for action in ACTIONS.values())
        decided = f"{found.decided / len(own):.0%}"
        wrong = f"{found.errors / found.decided:.0%}" if found.decided else ""
        guessed = f"{found.guessed}/{len(own)}"
        print(f"  {language:9}{kind or 'all':10}{len(own):10}{cells}{decided:>9}{wrong:>7}{guessed:>19}")
    print(
        "\n  Decided: the share that needs no person. Wrong: the share of these that is wrong. First guess:"
        "\n  the most probable label, before any threshold. Near miss: harmless, but worded like a forbidden"
        "\n  listing. Evasive: forbidden, in disguised spelling.\n"
    )
    for sentence in kept(outcome):
        print(f"  {sentence}")
    print("  Of so few listings, a share can miss its promise by chance.\n")
    told = "; ".join(f"{count} because {reason}" for reason, count in reasons(outcome.decided))
    print(textwrap.fill(f"Review: {told}.", _COLUMNS, initial_indent="  ", subsequent_indent="  "))


def _some(outcome: Outcome) -> list[Record]:
    """Of each language and action the first."""
    found = []
    for language in LANGUAGES:
        for action in ACTIONS.values():
            found += [one for one in outcome.of(language) if action_of(one) == action][:1]
    return found


def _print_listing(record: Record) -> None:
    decision = record["decision"]
    action = action_of(record)
    print(f"{action.upper():9} {_fit(record['text'], _LISTING).rstrip()}")
    if action == "review":
        print(f"          {reason_of(decision)}")
    else:
        wrong = "" if right(record) else f"; WRONG, its own label is {record['metadata']['label']}"
        print(
            f"          {decision['label']}: probability {decision['probability']:.2f}, threshold"
            f" {decision['threshold']:.2f}{wrong}"
        )
    for found in seeds_of(record, "because")[:_FOR]:
        print(f"  for     {_fit(found.text, _SEED)}  {found.by()}")
    for found in seeds_of(record, "against")[:_AGAINST]:
        print(f"  against {_fit(found.text, _SEED)}  {found.label}: {_best(found)}")
    print()


def _best(found: Found) -> str:
    route, rank = min(found.routes.items(), key=lambda item: item[1])
    return f"{route} #{rank}"


def _print_evasive(outcome: Outcome) -> None:
    """What became of disguised listings, and the most probable of each language."""
    disguised = [one for one in outcome.decided if one["metadata"]["note"] == "evasive"]
    found = tally(disguised)
    print(
        f"Evasive spellings: of {len(disguised)} disguised listings {found.actions['block']} are blocked,"
        f" {found.actions['review']} go to a person, {found.actions['innocent']} pass as innocent.\n"
        "Seeds that saw through some of them, and the routes that found these seeds:\n"
    )
    for language in LANGUAGES:
        guessed = [one for one in disguised if one["metadata"]["lang"] == language and right(one)]
        for record in sorted(guessed, key=lambda one: -one["decision"]["probability"])[:_EVASIVE]:
            decision, seed = record["decision"], seeds_of(record, "because")[0]
            print(f"{action_of(record).upper():9} {_fit(record['text'], _LISTING).rstrip()}")
            print(f"          {decision['label']}: probability {decision['probability']:.2f}")
            print(f"  for     {_fit(seed.text, _SEED)}  {seed.by()}\n")


def _print_files(outcome: Outcome, target: Path) -> None:
    shown = printable(target)
    print(
        f"Open {shown}/demo.html for all {len(outcome.decided)} decisions. The folder also holds:\n"
        "  recalled.jsonl  the listings with their seeds, scores and ranks\n"
        "  policy.json     the thresholds, and what they stand on\n"
        "  decided.jsonl   recalled.jsonl with the decisions\n\n"
        "Your own listings, one JSON record with a text per line, are decided by:\n"
        f"  ecom-rag recall mine.jsonl --seeds {shown}/bank.jsonl --model starter --deobfuscate \\\n"
        f"    --routes {','.join(outcome.routes)} --fusion weighted --top-k 50 --policy {shown}/policy.json \\\n"
        "    --output mine_decided.jsonl\n"
        "The starter model is small. For real work, take your own seeds, labelled listings and BAAI/bge-m3."
    )


def _fit(text: str, width: int) -> str:
    """Text cut or padded to terminal columns; Chinese characters take two, joiners and accents none."""
    out, used = "", 0
    for character in " ".join(text.split()):
        if unicodedata.category(character) in ("Cf", "Mn", "Cc"):
            continue
        columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used + columns > width - 1:
            return out + "…" + " " * (width - 1 - used)
        out, used = out + character, used + columns
    return out + " " * (width - used)
