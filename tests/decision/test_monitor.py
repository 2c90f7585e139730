"""Watching audited decisions: which count, what the figures are, and what is said of the rest."""

import math

import numpy as np
import pytest

from ecom_rag.decision.betting import log_wealth
from ecom_rag.decision.monitor import as_json, monitor_file, watch
from ecom_rag.decision.monitor_report import as_html, as_svg, as_text, write_plot
from ecom_rag.decision.promises import Promise
from ecom_rag.errors import RecordError, UsageError
from helpers import jsonl
from helpers.decided import decided, policy_file

PROMISES = (Promise("fraud", 0.95, 0.91), Promise("spam", 0.9, 0.8))


def placed(items):
    return [(f"a.jsonl:{number}", item) for number, item in enumerate(items, start=1)]


def watched(items, **options):
    return watch(placed(items), PROMISES, **options)


def test_errors_count_for_the_class_that_was_decided():
    items = [
        decided(1, truth="fraud"),
        decided(2, truth="spam"),
        decided(3, "spam", truth="spam"),
        decided(4, "spam", truth="innocent"),
        decided(5, truth="fraud"),
    ]
    fraud, spam = watched(items).classes
    assert fraud.wrong.tolist() == [False, True, False] and spam.wrong.tolist() == [False, True]
    assert (fraud.limit, spam.limit) == (0.05, 0.1) and fraud.error_rate == pytest.approx(1 / 3)
    assert fraud.log_wealth.tolist() == log_wealth([False, True, False], 0.05).tolist()
    assert fraud.wealth == pytest.approx(math.exp(fraud.log_wealth[-1])) and fraud.alarm is None


def test_labels_are_one_as_everywhere():
    promises = [Promise("1", 0.95, 0.9)]
    items = [decided(n, label, truth=truth) for n, (label, truth) in enumerate([(1, "1"), (1.0, 1), ("1", 2)])]
    assert watch(placed(items), promises).classes[0].wrong.tolist() == [False, False, True]


def test_what_does_not_count_is_counted():
    items = [
        decided(1, truth="fraud"),
        decided(2),  # nobody looked
        decided(3, truth="fraud", action="review"),
        decided(4, "rare", truth="rare"),
        decided(5, truth="x", campaign="campaign 1"),
        decided(6, truth="x", chosen="uncertainty"),
        decided(7, truth="fraud", chosen="audit"),
        decided(8, truth="fraud", action="innocent"),
    ]
    found = watched(items)
    counts = found.counts
    assert (counts.records, counts.audited, counts.unlabelled, counts.review) == (8, 2, 1, 1)
    assert (counts.no_promise, counts.repeated, counts.selected) == (2, 1, 1)
    assert found.classes[0].wrong.tolist() == [False, False]
    assert "1 records were chosen for their uncertainty and do not count" in found.notes[0]
    assert '1 without a label under "label", 1 decided review, 2 of classes without a threshold' in found.notes[1]


def test_the_first_audited_text_of_a_campaign_counts():
    """A copy that nobody labelled or that was not decided takes no place away."""
    items = [decided(1, campaign="c"), decided(2, truth="x", action="review", campaign="c")]
    items += [decided(3, truth="fraud", campaign="c"), *(decided(n, truth="x", campaign="c") for n in range(4, 50))]
    found = watched(items)
    assert found.classes[0].wrong.tolist() == [False] and found.counts.repeated == 46 and not found.alarms


def test_a_selected_sample_counts_only_where_it_is_asked_for():
    items = [decided(n, truth="x", chosen="uncertainty") for n in range(10)]
    assert not watched(items).alarms
    found = watched(items, count_selected=True)
    assert found.alarms and found.counts.selected == 0 and found.counts.selected_audited == 10
    assert "10 audited decisions were chosen for their uncertainty: they are no random sample" in found.notes[0]


def test_alpha_is_per_class_or_for_all_together():
    items = [decided(n, truth="x" if n % 4 == 0 else "fraud") for n in range(60)]
    alone, together = watched(items), watched(items, jointly=True)
    assert [one.alpha for one in alone.classes] == [0.05, 0.05]
    assert [one.alpha for one in together.classes] == [0.025, 0.025]
    assert alone.classes[0].alarm < together.classes[0].alarm
    assert (
        "reaches 20: with a promise that holds, this happens with a probability of at most 0.05 per class"
        in as_text(alone)
    )
    assert "at most 0.1 for any of the 2 classes" in as_text(alone)
    assert (
        "reaches 40: with a promise that holds, this happens with a probability of at most 0.05 for any of the 2"
        in as_text(together)
    )


def test_another_threshold_is_told():
    items = [decided(1, truth="fraud"), decided(2, truth="fraud")]
    items[0]["decision"]["threshold"] = 0.7
    assert "1 audited decisions were made with another threshold than the policy's" in watched(items).notes[0]


def test_a_label_under_another_key():
    record = decided(1)
    record["metadata"]["audit"] = {"verdict": "spam"}
    assert watched([record], label_key="audit.verdict").classes[0].errors == 1


def test_a_file(tmp_path):
    items = [decided(n, truth="x" if n % 4 == 0 else "fraud") for n in range(60)]
    found = monitor_file(jsonl.write(tmp_path / "a.jsonl", items), policy_file(tmp_path / "policy.json"))
    figures = as_json(found)["classes"]
    assert figures["fraud"]["audited"] == 60 and figures["fraud"]["alarm_after"] == found.classes[0].alarm
    assert figures["spam"] == {
        "audited": 0,
        "errors": 0,
        "error_rate": None,
        "promised_error_rate": 0.1,
        "wealth": 1.0,
        "highest_wealth": 1.0,
        "alarm_line": 20.0,
        "alarm_after": None,
    }
    assert "spam   10 %            0        0       -           1.00     1.00     no" in as_text(found)


def test_nothing_audited_is_no_success(tmp_path):
    policy = policy_file(tmp_path / "policy.json")
    path = jsonl.write(tmp_path / "a.jsonl", [decided(1), decided(2, truth="x", action="review")])
    with pytest.raises(
        UsageError, match=r'no audited decision among 2 records .1 without a label under "label", 1 dec'
    ):
        monitor_file(path, policy)
    with pytest.raises(UsageError, match="no audited decision among 0 records"):
        monitor_file(jsonl.write(tmp_path / "b.jsonl", []), policy)


def test_a_record_that_was_not_decided_is_named():
    with pytest.raises(RecordError, match=r'a.jsonl:2: "decision" is missing; expected a record that ecom-rag decide'):
        watched([decided(1, truth="fraud"), {"text": "a", "metadata": {}}])


@pytest.mark.parametrize("alpha", [0, 1, 2, "0.05", float("nan")])
def test_alpha_out_of_range(alpha):
    with pytest.raises(UsageError, match=r"`alpha` is .*; expected a number above 0, below 1"):
        watched([], alpha=alpha)


def test_the_picture(tmp_path):
    """A point per decision from 1 on, the line of the alarm, and a dot where it went off."""
    from xml.etree import ElementTree

    items = [decided(n, truth="x" if n % 4 == 0 else "fraud") for n in range(60)]
    items += [decided(100 + n, "spam", truth="spam") for n in range(30)]
    found = watched(items)
    tree = ElementTree.fromstring(as_svg(found))
    namespace = "{http://www.w3.org/2000/svg}"
    fraud, spam = tree.iter(f"{namespace}polyline")
    assert [len(line.get("points").split()) for line in (fraud, spam)] == [61, 31]
    said = ["".join(text.itertext()) for text in tree.iter(f"{namespace}text")]
    assert (
        "alarm at 20" in said
        and f"fraud: 15 of 60 wrong, at most 5 % promised, alarm after {found.classes[0].alarm}" in said
    )
    [dot] = tree.iter(f"{namespace}circle")
    assert f"{dot.get('cx')},{dot.get('cy')}" == fraud.get("points").split()[found.classes[0].alarm]
    write_plot(found, tmp_path / "p.svg")
    assert ElementTree.parse(tmp_path / "p.svg").getroot().tag == f"{namespace}svg"


def test_the_page_escapes_what_comes_from_outside(tmp_path):
    label = "<script>alert(1)</script>"
    found = watch(placed([decided(1, label, truth="x")]), [Promise(label, 0.95, 0.9)])
    write_plot(found, tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert page == as_html(found) and "<script" not in page and "&lt;script&gt;" in page


def test_a_picture_of_another_format(tmp_path):
    with pytest.raises(UsageError, match=r"ends in no known format of a picture; expected .svg or .html"):
        write_plot(watched([]), tmp_path / "p.png")


def test_a_long_watch_draws_a_few_points():
    found = watched([decided(n, truth="fraud" if n % 50 else "x") for n in range(5000)])
    assert len(found.classes[0].wrong) == 5000 and len(as_svg(found)) < 40_000
    assert np.isfinite(found.classes[0].log_wealth).all()
