"""The report page: its figures are those of the policy, it escapes what it shows, and it stands with little to show."""

import re
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from ecom_rag.decision.calibration import calibrate
from ecom_rag.decision.decide import Decider
from ecom_rag.decision.figures import bins_of, curve_of, lacking, largest, outcome_of, tally, worst
from ecom_rag.decision.guarantee import Step
from ecom_rag.decision.page import as_html, write_page
from ecom_rag.decision.policy import load_policy
from ecom_rag.decision.settings import Calibrate
from ecom_rag.decision.tables import as_text
from ecom_rag.pipeline import Recall, recall_file
from helpers.jsonl import write
from helpers.listings import LABELS, ROUTES, listings, pipeline

EVIL = '<img src="x" onerror="alert(1)"> & \'赌博\''


@pytest.fixture(scope="module")
def seeds():
    return listings(600, seed=0)


@pytest.fixture(scope="module")
def labelled(seeds):
    """New listings, one of them sent 20 times, and relatives of seeds."""
    new = listings(600, seed=1, start=10_000, noise=0.03)
    flood = [{**new[0], "text": new[0]["text"] + "!" * (number % 3)} for number in range(19)]
    relatives = [{**one, "text": one["text"].upper()} for one in seeds[:60]]
    return [*new, *flood, *relatives]


@pytest.fixture(scope="module")
def found(seeds, labelled):
    return calibrate(labelled, pipeline(seeds), Calibrate(precision=0.9, innocent=("ok",)))


@pytest.fixture(scope="module")
def page(found):
    return as_html(found, made_by="calibrate 'x y' > z", title="<Kalibrierung>")


def rows(page, anchor):
    """The cells of the first table of a section, without its head."""
    section = page.split(f'id="{anchor}"', 1)[1].split("<h2", 1)[0]
    body = section.split("<tbody>", 1)[1].split("</tbody>", 1)[0]
    cells = (re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line) for line in body.split("</tr>") if line)
    return [[re.sub(r"<[^>]+>", "", cell) for cell in line] for line in cells]


def test_the_promises_are_those_of_the_policy(found, page):
    shown = {line[0].removesuffix(" (innocent)"): line[1:] for line in rows(page, "promises")}
    assert set(shown) == set(found.policy.classes)
    for label, rule in found.policy.classes.items():
        if rule.threshold is None:
            assert shown[label] == ["review", "–", str(rule.labels_missing), *"––––", str(rule.labelled)]
            continue
        bound, coverage, missing, threshold, recall, campaigns, errors, own = shown[label]
        assert float(bound[:-1]) / 100 <= rule.bound < float(bound[:-1]) / 100 + 0.001
        assert (coverage, recall) == (f"{rule.coverage:.0%}", f"{rule.recall:.0%}")
        assert (threshold, missing) == (f"{rule.threshold:.4f}", "–")
        assert [campaigns, errors, own] == [str(rule.campaigns), str(rule.errors), str(rule.labelled)]
    assert "at least 90% are right, with confidence 90%: for each of 3 labels, by itself, not all at once." in page
    assert "Nothing is promised of a single listing" in page


def test_decisions_are_those_of_decide_and_campaigns_those_of_the_policy(found, page):
    policy, judged = found.policy, found.judged
    outcome = outcome_of(policy, judged)
    decided = [one["decision"] for one in Decider(policy).decide(judged.results)]
    assert outcome.automatic.tolist() == [one["action"] != "review" for one in decided]
    campaigns = tally(outcome, judged.representative)
    with_threshold = [rule for rule in policy.classes.values() if rule.threshold is not None]
    assert campaigns.decided == sum(rule.campaigns for rule in with_threshold)
    assert campaigns.wrong == sum(rule.errors for rule in with_threshold) > 0
    assert campaigns.total == policy.calibration["campaigns"] == 600
    shown = {line[0]: line[1:] for line in rows(page, "campaigns")}
    right = f"{1 - campaigns.wrong / campaigns.decided:.1%}"
    listed = tally(outcome)
    assert shown["all decided"][:2] == [str(listed.decided), str(listed.wrong)]
    assert shown["all decided"][3:] == [str(campaigns.decided), str(campaigns.wrong), right, "20"]
    assert shown["review"][0] == str(listed.total - listed.decided)


def test_the_confusion_has_review_as_a_column(found, page):
    outcome = outcome_of(found.policy, found.judged)
    section = page.split('id="decisions"', 1)[1]
    head = re.findall(r'<th class="class">(.*?)</th>', section)
    assert head[-1] == "review"
    names = {-1: "review", **dict(enumerate(found.policy.combiner.labels))}
    one = found.judged.representative
    own = [label for label, here in zip(found.judged.labels, one.tolist(), strict=True) if here]
    counted = Counter(zip(own, (names[number] for number in outcome.decided[one].tolist()), strict=True))
    for label, total, *cells in rows(page, "decisions"):
        assert {name: cell for name, cell in zip(head, cells, strict=True) if cell != "·"} == {
            name: str(count) for (gold, name), count in counted.items() if gold == label
        }
        assert int(total) == own.count(label)


def test_relatives_of_seeds_are_shown_beside_the_others(found, page):
    assert found.judged.left_out == len(found.judged.relatives.results) == 60
    without, related = rows(page, "relatives")
    assert (without[1], related[1], related[3]) == ("619", "60", "60")
    first = found.judged.relatives.verdicts.first == found.judged.relatives.truth
    assert related[4] == f"{first.mean():.1%}"
    assert "near-duplicate among the seeds" not in page.split('id="promises"')[0]


def test_the_largest_campaigns_and_the_worst_errors(found, page):
    outcome = outcome_of(found.policy, found.judged)
    [one] = largest(outcome, 10)
    assert (one.listings, one.labels) == (20, ("fraud",))
    assert rows(page, "largest")[0][1:] == ["fraud", "fraud", "20"]
    chosen = worst(outcome, 3)
    highest = found.judged.verdicts.highest
    wrong = outcome.wrong & found.judged.representative
    assert highest[chosen].tolist() == sorted(highest[wrong].tolist(), reverse=True)[:3]
    cases = page.split('<ol class="cases">')[1].split("</ol>")[0]
    result = found.judged.results[chosen[0]]
    assert result["text"] in cases.split("<ul>")[0]
    assert result["topk_seed"][0] in cases.split("</ul>")[0]


def test_bins_are_counts_of_campaigns_with_exact_intervals(found):
    bins = bins_of(found.judged)
    candidates = found.judged.representative & (found.judged.verdicts.first >= 0)
    assert sum(one.campaigns for one in bins) == candidates.sum()
    for one in bins:
        assert one.low <= one.probability <= one.high
        exact = binomtest(round(one.right * one.campaigns), one.campaigns).proportion_ci(0.95, "exact")
        assert one.interval == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_the_certified_point_lies_on_the_curve(found):
    for place, label in enumerate(found.policy.combiner.labels):
        rule, curve = found.policy.classes[label], curve_of(found.judged, [place])
        assert (np.diff(curve.coverage) > 0).all() and curve.coverage[-1] == 1
        if rule.threshold is not None:
            at = np.argmin(np.abs(curve.coverage - rule.coverage))
            assert curve.coverage[at] == pytest.approx(rule.coverage)
            assert curve.precision[at] == pytest.approx(1 - rule.errors / rule.campaigns)


def test_what_labels_would_bring(found, page):
    [rare] = lacking(found.policy, found.judged)
    assert rare.label == "rare" and rare.rule.labels_missing
    _, why, missing, gain, effort = rows(page, "missing")[0]
    assert (why, missing) == (rare.rule.why, str(rare.rule.labels_missing))
    assert gain == f"+{rare.would_pass:.1%}"
    assert effort == f"{rare.rule.labels_missing / rare.would_pass:,.0f}"


def test_everything_from_outside_is_escaped(seeds, labelled):
    def evil(items):
        renamed = [{**one, "metadata": {**one["metadata"], "label": one["metadata"]["label"] + EVIL}} for one in items]
        return [{**one, "text": f"{one['text']} {EVIL}"} for one in renamed]

    found = calibrate(evil(labelled), pipeline(evil(seeds)), Calibrate(precision=0.9))
    shown = as_html(found, made_by=EVIL, title=EVIL)
    assert "<img" not in shown and 'onerror="' not in shown
    assert "&lt;img" in shown and "赌博" in shown


def test_the_page_is_one_file_and_the_same_on_one_day(found, page, tmp_path, monkeypatch):
    assert "<h1>&lt;Kalibrierung&gt;</h1>" in page and "<code>calibrate &#x27;x y&#x27; &gt; z</code>" in page
    for loaded in ("http", "url(", "@import", "<script", " src="):
        assert loaded not in page
    anchors = re.findall(r'href="#([^"]+)"', page)
    assert len(anchors) == len(set(anchors)) == 10
    assert all(f'id="{anchor}"' in page for anchor in anchors)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    for name in ("a.html", "b.html"):
        write_page(found, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert "1970-01-01" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_a_policy_without_any_threshold(seeds):
    few = calibrate(listings(40, seed=3, start=10_000), pipeline(seeds))
    shown = as_html(few, made_by="x")
    assert "This policy promises nothing" in shown and "All 40 calibration campaigns go to review." in shown
    assert "4 of 4 labels have no threshold" in shown
    assert {line[1] for line in rows(shown, "promises")} == {"review"}
    assert "No campaign is decided wrongly." in shown and "No campaign has more than one listing." in shown
    assert "None of the 40 labelled listings has a near-duplicate" in shown


def test_listings_without_candidates_and_labels_that_no_seed_has(seeds):
    strange = [
        {"text": text, "metadata": {"label": "龘类"}} for text in ("龘龘龘", "靐靐靐", "爩爩爩", "厵厵厵", "麤麤麤")
    ]
    found = calibrate(strange, pipeline(seeds))
    shown = as_html(found, made_by="x")
    assert rows(shown, "decisions") == [["龘类", "5", "5"]]
    assert "No campaign has a candidate label." in shown and 'id="coverage"' not in shown
    assert [line[1:3] for line in rows(shown, "missing")] == [
        [rule.why, str(rule.labels_missing)] for _, rule in sorted(found.policy.classes.items())
    ]


def test_pools_joint_promises_and_false_positives_are_said(found):
    policy = found.policy
    pool = ("fraud", "rare")
    pooled = {label: replace(rule, pool=pool if label in pool else ()) for label, rule in policy.classes.items()}
    pooled["rare"] = replace(pooled["fraud"])
    guarantee = replace(policy.guarantee, jointly=True, delta=0.025, precision=0.975)
    shown = as_html(replace(found, policy=replace(policy, classes=pooled, guarantee=guarantee)), made_by="x")
    assert (
        "at least 97.5% are right, with confidence 97.5%: for each of 2 labels and for 2 labels taken together, all at"
        " once." in shown
    )
    assert "The labels fraud, rare share one threshold and one promise, of all of them together." in shown
    assert 'id="missing"' not in shown
    rate = replace(policy.guarantee, false_positive_rate=0.2, flag_threshold=0.1, innocents=200)
    shown = as_html(replace(found, policy=replace(policy, guarantee=rate)), made_by="x")
    assert re.search(r"At most 20% of the innocent campaigns are .* in the calibration \d+ of 200\.", shown)


def test_evasive_spellings_are_part_of_the_claim_and_have_a_table(found):
    policy = found.policy
    step = Step(0.5, 1234, 7, 0.01)
    rules = {
        label: replace(rule, evasive={"split": step} if rule.threshold else {})
        for label, rule in policy.classes.items()
    }
    spelled = replace(policy, classes=rules, guarantee=replace(policy.guarantee, evasive=("split", "homophone")))
    shown = as_html(replace(found, policy=spelled), made_by="x")
    assert "at least 90% are right, also of those spelled evasively (split, homophone), with confidence 90%" in shown
    assert "also of those spelled evasively (split, homophone)" in as_text(replace(found, policy=spelled))
    assert {tuple(line[1:]) for line in rows(shown, "evasive")} == {("7 of 1,234", "–")}
    assert {line[0] for line in rows(shown, "evasive")} == set(LABELS)


def test_what_labels_alone_would_not_mend(found):
    hopeless = replace(found.policy.classes["rare"], labels_missing=None)
    policy = replace(found.policy, classes={**found.policy.classes, "rare": hopeless})
    shown = as_html(replace(found, policy=policy), made_by="x")
    assert rows(shown, "missing")[0][2:] == ["?", "–", "–"]
    assert "Nearest is" not in shown


def test_the_command_writes_the_page_and_refuses_other_files_before_any_work(seeds, labelled, tmp_path, monkeypatch):
    def run(*options):
        from ecom_rag.cli import main

        words = ["calibrate", tmp_path / "recalled.jsonl", "--seeds", tmp_path / "seeds.jsonl", *options]
        monkeypatch.setattr(sys, "argv", ["ecom-rag", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    write(tmp_path / "seeds.jsonl", seeds)
    write(tmp_path / "labelled.jsonl", labelled)
    recall_file(
        tmp_path / "labelled.jsonl", tmp_path / "recalled.jsonl", Recall(routes=ROUTES), seeds=tmp_path / "seeds.jsonl"
    )
    policy, report = tmp_path / "policy.json", tmp_path / "a.html"
    for wrong in (policy, tmp_path / "seeds.jsonl", tmp_path / "recalled.jsonl", tmp_path / "no" / "a.html", "-"):
        assert run("--output", policy, "--report", wrong) == 2
        assert not policy.exists()
    assert run("--output", policy, "--report", report, "--precision", "0.9", "--quiet") == 0
    shown = report.read_text(encoding="utf-8")
    assert load_policy(policy).fingerprint in shown
    assert "seeds.jsonl --precision 0.9</code>" in shown and "a.html" not in shown
