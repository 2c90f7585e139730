"""The plot of the READMEs: precision over coverage of each label, with the certified point, as one SVG.

It reads what ``recipes/decisions.sh DATA WORK chinese_harm`` leaves: python benchmarks/coverage_plot.py WORK/decisions_chinese_harm
"""

import argparse
import re
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np

ENGLISH = {
    "不违规": "innocent",
    "博彩": "gambling",
    "低俗色情": "pornography",
    "谩骂引战": "abuse",
    "欺诈": "fraud",
    "黑产广告": "illicit ads",
}
LOW = 0.8  # where the axes of precision begin
PLOT, HEAD, COLUMNS = (440, 230), 44, 2
NOTE = (
    "Line: calibration campaigns, the most probable first. Dot and bar: the certified threshold and the precision that",
    "holds with confidence 90 %. Dashed: the precision asked for. Fresh: campaigns of dev that it decides.",
)


def judged(folder, policy, name, label_key):
    """A file of labelled results as the calibration sees it, without relatives of seeds."""
    from ecom_rag.decision.judged import judge
    from ecom_rag.decision.learned import Learned
    from ecom_rag.decision.own_seeds import LabelledSeeds
    from ecom_rag.files.records import read

    texts = [one["text"] for one in read(folder / "seeds.jsonl")]
    nothing = np.empty(0, np.int64)
    seeds = LabelledSeeds(policy.combiner.labels, nothing, nothing, texts, nothing)
    items = list(read(folder / name))
    labels = [str(one["metadata"][label_key]) for one in items]
    learned = Learned(policy.evidence, seeds, policy.combiner, ())
    return judge(items, labels, learned, policy.guarantee.similarity)


def panel(label, place, rule, calibration, fresh):
    """A plot and the two lines above it."""
    from ecom_rag.decision.figures import curve_of
    from ecom_rag.decision.guarantee import floored
    from ecom_rag.evaluation import charts

    missing = (
        f"{rule.labels_missing} more labels without an error would do"
        if rule.labels_missing
        else f"wrong too often for {rule.target:.0%}"
    )
    point, told = None, f"no threshold: {missing}"
    if rule.threshold is not None:
        right = 1 - rule.errors / rule.campaigns
        point = charts.Point(rule.coverage, right, rule.bound, right, label)
        units = fresh.units([])
        passed = (units.predicted == place) & (units.probabilities >= rule.threshold)
        hits = int((units.truth[passed] == place).sum())
        told = f"at least {floored(rule.bound):.1%} right at coverage {rule.coverage:.0%}; fresh: {hits} of {passed.sum()} right"
    curve = curve_of(calibration, [place])
    figure = charts.coverage((curve.coverage.tolist(), curve.precision.tolist()), point, rule.target, LOW, label)
    return f"{ENGLISH.get(label, '')} {label}".strip(), told, re.search(r"<svg [^>]*>(.*)</svg>", figure)[1]


def sheet(panels) -> str:
    """Plots side by side, legible on light and on dark pages."""
    style = resources.files("ecom_rag.evaluation").joinpath("report.css").read_text("utf-8")
    chosen = re.findall(r"^(?::root \{.*?^\}|@media screen.*?^\}|svg .*?$|\.c\d .*?$)", style, re.DOTALL | re.MULTILINE)
    css = "\n".join(chosen).replace("svg { display: block; max-width: 100%; height: auto; ", "svg { ")
    wide, high = PLOT[0], PLOT[1] + HEAD
    rows = -(-len(panels) // COLUMNS)
    size = COLUMNS * wide, rows * high + 20 * len(NOTE) + 12
    parts = []
    for number, (name, told, body) in enumerate(panels):
        x, y = number % COLUMNS * wide, number // COLUMNS * high
        parts.append(
            f'<g transform="translate({x} {y})"><text x="52" y="20" font-weight="600">{escape(name)}</text>'
            f'<text class="tick" x="52" y="38">{escape(told)}</text><g transform="translate(0 {HEAD})">{body}</g></g>'
        )
    notes = [
        f'<text class="tick" x="16" y="{rows * high + 16 + 20 * at}">{escape(one)}</text>'
        for at, one in enumerate(NOTE)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" role="img" lang="en">\n'
        "<title>Precision over coverage of the six labels of ChineseHarm-Bench, with the certified points</title>\n"
        f'<style>\n{css}\n</style>\n<rect width="{size[0]}" height="{size[1]}" rx="10" fill="var(--paper)"/>\n'
        + "\n".join(parts + notes)
        + "\n</svg>\n"
    )


def main() -> None:
    """Write the plot."""
    from ecom_rag.decision.policy import load_policy

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path, nargs="?", default=Path("docs/static/coverage.svg"))
    args = parser.parse_args()
    policy = load_policy(args.folder / "policy.json")
    key = policy.evidence.label_key
    sets = [judged(args.folder, policy, name, key) for name in ("labelled_recalled.jsonl", "decided.jsonl")]
    places = {label: place for place, label in enumerate(policy.combiner.labels)}
    order = sorted(
        places, key=lambda one: (policy.classes[one].threshold is None, one not in policy.innocent, places[one])
    )
    args.output.write_text(sheet([panel(one, places[one], policy.classes[one], *sets) for one in order]), "utf-8")


if __name__ == "__main__":
    main()
