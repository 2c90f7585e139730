"""Calibration: each mistake that a promise cannot survive is planted here, and does not get through."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ecom_rag.decision.calibration import calibrate, policy_of
from ecom_rag.decision.decide import Decider
from ecom_rag.decision.guarantee import Candidate, p_value
from ecom_rag.decision.judged import judge
from ecom_rag.decision.learned import learn
from ecom_rag.decision.own_seeds import labelled_seeds, seeds_as_listings
from ecom_rag.decision.policy import Guarantee, load_policy
from ecom_rag.decision.rules import Units, rules_of
from ecom_rag.decision.settings import Calibrate
from ecom_rag.errors import PolicyError, RecordError, UsageError
from ecom_rag.files.digest import of_texts
from ecom_rag.pipeline import Pipeline, Recall, Seeds
from helpers.listings import LABELS, ROUTES, listings, pipeline


@pytest.fixture(scope="module")
def seeds():
    return listings(600, seed=0)


@pytest.fixture(scope="module")
def recall(seeds):
    return pipeline(seeds)


@pytest.fixture(scope="module")
def labelled():
    return listings(600, seed=1, start=10_000)


@pytest.fixture(scope="module")
def found(recall, labelled):
    return calibrate(labelled, recall, Calibrate(innocent=("ok",)))


def test_classes_with_enough_labels_have_a_threshold_and_the_others_are_told_how_many_are_missing(found):
    rules = found.policy.classes
    assert set(rules) == {*LABELS, "rare"}
    for label in LABELS:
        rule = rules[label]
        assert rule.threshold is not None
        assert (rule.labels_missing, rule.target) == (0, 0.95)
        assert rule.bound >= 0.95
        passed = (found.judged.verdicts.first == sorted([*LABELS, "rare"]).index(label)) & (
            found.judged.verdicts.highest >= rule.threshold
        )
        assert rule.campaigns == (passed & found.judged.representative).sum()
    assert rules["rare"].threshold is None
    assert rules["rare"].labels_missing > 30
    assert "would do" in rules["rare"].why


def test_the_combiner_and_the_thresholds_do_not_know_the_calibration_labels(recall, labelled, found):
    shuffled = [one["metadata"]["label"] for one in labelled]
    np.random.default_rng(0).shuffle(shuffled)
    other = [
        {**one, "metadata": {**one["metadata"], "label": label}} for one, label in zip(labelled, shuffled, strict=True)
    ]
    again = calibrate(other, recall, Calibrate(innocent=("ok",))).policy
    np.testing.assert_array_equal(again.combiner.weights, found.policy.combiner.weights)
    np.testing.assert_array_equal(again.combiner.bias, found.policy.combiner.bias)
    for label, rule in again.classes.items():
        assert rule.threshold is None
        tested = {step.threshold for step in rule.steps}
        assert tested == {step.threshold for step in found.policy.classes[label].steps}


def test_relatives_of_seeds_are_left_out_and_counted(recall, labelled, seeds, found):
    copies = [{**one, "text": one["text"].upper() + "!"} for one in seeds[:300]]
    again = calibrate([*labelled, *copies], recall, Calibrate(innocent=("ok",)))
    assert again.policy.calibration["left_out_as_relatives_of_seeds"] == 300
    assert again.policy.classes == found.policy.classes
    assert any("300 listings have near-duplicates among the seeds" in note for note in again.notes)
    with pytest.raises(UsageError, match="near-duplicates among the seeds"):
        calibrate(copies, recall)


def test_copies_of_a_listing_are_one_campaign(recall, labelled, found):
    flood = [
        {**labelled[0], "text": f"{labelled[0]['text']} {'!' * (number % 3)}", "metadata": labelled[0]["metadata"]}
        for number in range(500)
    ]
    again = calibrate([*labelled, *flood], recall, Calibrate(innocent=("ok",)))
    assert again.policy.calibration["listings"] == 1100
    assert again.policy.calibration["campaigns"] == found.policy.calibration["campaigns"]
    counted = [(rule.labelled, rule.campaigns) for rule in again.policy.classes.values()]
    assert counted == [(rule.labelled, rule.campaigns) for rule in found.policy.classes.values()]


def test_a_seed_as_a_listing_finds_no_copy_of_itself(seeds):
    """It would confirm itself, which no new listing can."""
    copies = [
        {"text": f"龘龘靐 爩爩龗 厵厵麤 {'!' * n}", "metadata": {"label": "ok", "id": f"c{n}"}} for n in range(40)
    ]
    recall = pipeline([*seeds, *copies], routes=("bm25",))
    with recall.view() as view:
        labelled = labelled_seeds(view, "label", similarity=0.85)
        neighbours, truth = seeds_as_listings(recall, view, labelled)
    assert len(truth) == len(np.unique(labelled.campaigns)) == 601
    alone = np.flatnonzero((neighbours.labels < 0).all(axis=1))
    assert truth[alone].tolist() == [labelled.labels.index("ok")]


def test_jointly_is_stricter_and_a_pool_promises_for_the_pool(recall, labelled):
    learned = learn(recall, Calibrate())
    results = recall.recall(labelled)
    judged = judge(results, [one["metadata"]["label"] for one in labelled], learned, 0.85)
    alone, jointly = (policy_of(judged, learned, Calibrate(jointly=jointly)) for jointly in (False, True))
    for label in LABELS:
        strict, plain = jointly.classes[label].threshold, alone.classes[label].threshold
        assert strict is None or strict >= plain
        assert jointly.classes[label].bound <= alone.classes[label].bound or strict != plain
    assert "jointly with the other labels" in str(jointly.promise("fraud"))
    few = policy_of(judged, learned, Calibrate(precision=0.99, pool=True))
    pooled = [rule for rule in few.classes.values() if rule.pool]
    assert len(pooled) >= 2
    assert len({(rule.threshold, rule.pool) for rule in pooled}) == 1


def test_a_pool_does_not_leave_out_the_classes_that_err(recall, labelled):
    """Chosen by the labels that certify it, a pool of classes that happen to be right would promise too much."""
    learned = learn(recall, Calibrate())
    judged = judge(recall.recall(labelled), [one["metadata"]["label"] for one in labelled], learned, 0.85)
    asked = Calibrate(precision=0.99, pool=True)
    wrong = replace(judged, truth=np.where(judged.truth == 0, 1, judged.truth))
    pools = [{rule.pool for rule in policy_of(one, learned, asked).classes.values()} for one in (judged, wrong)]
    assert pools[0] == pools[1] and max(map(len, pools[0])) >= 2


def test_a_false_positive_rate_raises_every_threshold_but_that_of_innocents(recall, labelled):
    asked = Calibrate(innocent=("ok",), false_positive_rate=0.02)
    policy = calibrate(labelled, recall, asked).policy
    floor = policy.guarantee.flag_threshold
    assert floor is not None
    assert policy.guarantee.innocents >= 114
    for label in ("fraud", "medical"):
        threshold = policy.classes[label].threshold
        assert threshold is None or threshold >= floor
    with pytest.raises(UsageError, match="needs at least 114"):
        calibrate(labelled[:90], recall, asked)
    with pytest.raises(UsageError, match="no seed has the innocent label 'harmless'"):
        calibrate(labelled, recall, Calibrate(innocent=("harmless",)))


def test_a_promise_for_evasive_spellings_holds_for_every_kind(recall, labelled, found):
    kinds = ("spacing", "leet")
    policy = calibrate(labelled, recall, Calibrate(innocent=("ok",), evasive=kinds)).policy
    for label in LABELS:
        rule, clean = policy.classes[label], found.policy.classes[label]
        if rule.threshold is None:
            assert any(kind in rule.why for kind in kinds)
            continue
        assert rule.threshold >= clean.threshold
        assert set(rule.evasive) == set(kinds)
        for step in rule.evasive.values():
            assert step.threshold == rule.threshold
            assert p_value(step.errors, step.campaigns, 0.05) <= 0.1
    assert any(policy.classes[label].threshold is not None for label in LABELS)
    promise = next(filter(None, map(policy.promise, LABELS)))
    assert "also of those spelled evasively (spacing, leet)" in promise
    with pytest.raises(UsageError, match="evasive"):
        calibrate(labelled, recall, Calibrate(evasive=("rhyme",)))


def test_a_spelling_that_misleads_takes_the_threshold_away():
    """A kind in which half of the campaigns are put in the wrong class, with high probability."""
    clean = Units(np.zeros(200, np.int64), np.zeros(200, np.int64), np.full(200, 0.9), np.full(200, 0.9))
    misled = Units(np.arange(200) % 2, np.zeros(200, np.int64), np.full(200, 0.9), np.full(200, 0.9))
    guarantee = Guarantee(0.95, 0.1, jointly=False, similarity=0.85)
    tested = [(Candidate(0.8, 0.01),)] * 2
    plain = rules_of(clean, tested, ("a", "b"), guarantee)
    both = rules_of(clean, tested, ("a", "b"), guarantee, evasive={"split": misled})
    assert plain["a"].threshold == 0.8
    assert both["a"].threshold is None
    assert both["a"].why.startswith("spelled evasively (split): 100 of 200")


def test_listings_that_were_picked_for_their_uncertainty_are_no_sample(recall, labelled, found):
    picked = [{**one, "text": f"picked {one['text']}", "chosen": {"by": "uncertainty"}} for one in labelled[:50]]
    again = calibrate([*labelled, *picked], recall, Calibrate(innocent=("ok",)))
    assert again.policy.classes == found.policy.classes
    assert again.notes[0].startswith("50 listings were chosen for their uncertainty and left out")
    audit = [{**one, "chosen": {"by": "audit"}} for one in labelled]
    assert calibrate(audit, recall, Calibrate(innocent=("ok",))).policy.classes == found.policy.classes


def test_a_filter_calibrates_on_the_newest(recall, labelled):
    dated = [{**one, "metadata": {**one["metadata"], "day": number // 100}} for number, one in enumerate(labelled)]
    found = calibrate(dated, recall, Calibrate(filter="day >= 4"))
    assert found.policy.calibration["listings"] == 200
    assert found.policy.calibration["filter"] == "day >= 4"
    with pytest.raises(UsageError, match="no listings to calibrate on"):
        calibrate(dated, recall, Calibrate(filter="day > 9"))


def test_labels_that_no_seed_has_are_errors_and_named(recall, labelled):
    other = [{**one, "metadata": {"label": "new"}} if one["metadata"]["label"] == "fraud" else one for one in labelled]
    found = calibrate(other, recall)
    assert found.policy.classes["fraud"].threshold is None
    assert "new" not in found.policy.classes
    assert any("no seed has the label new" in note for note in found.notes)


def test_what_cannot_be_calibrated_says_so_in_a_line(recall, labelled):
    with pytest.raises(UsageError, match="no listings"):
        calibrate([], recall)
    with pytest.raises(RecordError, match="listing 1: a listing to calibrate on"):
        calibrate([{"text": "x", "metadata": {}}], recall)
    with pytest.raises(UsageError, match="no seed has a label under the metadata key 'kind'"):
        calibrate(
            labelled,
            Pipeline(Seeds(listings(9, seed=3), routes=ROUTES), Recall(routes=ROUTES, label_key="kind")),
            Calibrate(label_key="label"),
        )
    for wrong in ({"precision": 1.5}, {"delta": 0}, {"false_positive_rate": 0.1}, {"similarity": 0.2}):
        with pytest.raises(UsageError):
            calibrate(labelled, recall, Calibrate(**wrong))


def test_a_bank_too_small_to_teach_lets_its_seeds_vote(labelled):
    found = calibrate(labelled[:200], pipeline(listings(60, seed=0)))
    assert found.policy.combiner.name == "votes"
    assert any("the seeds vote" in note for note in found.notes)


def test_a_policy_comes_back_as_it_was_and_not_as_it_was_edited(found, tmp_path):
    path = tmp_path / "policy.json"
    found.policy.save(path)
    loaded = load_policy(path)
    assert loaded.fingerprint == found.policy.fingerprint
    assert loaded.classes == found.policy.classes
    content = json.loads(path.read_text())
    for edit, said in (
        (lambda one: one["classes"]["rare"].update(threshold=0.5), "was changed after it was made"),
        (lambda one: one["combiner"].pop("bias"), "was changed after it was made"),
        (lambda one: one["calibration"].update(created="2020-01-01T00:00:00+00:00"), "was changed after it was made"),
        (lambda one: one.pop("checksum"), "was changed after it was made"),
        (lambda one: one.update(version=1), "was changed after it was made"),
        (lambda one: one.update(version=3), "of version 3; this ecom_rag reads the versions 1 and 2"),
        (lambda one: one.update(kind="menu"), "is not a policy"),
    ):
        changed = json.loads(json.dumps(content))
        edit(changed)
        path.write_text(json.dumps(changed))
        with pytest.raises(PolicyError, match=said) as error:
            load_policy(path)
        assert "\n" not in str(error.value)


def test_equal_policies_have_one_fingerprint_whenever_they_were_made(found):
    early, late, other = (
        replace(found.policy, calibration={**found.policy.calibration, **changed})
        for changed in ({"created": "2026-01-01"}, {"created": "2026-02-02"}, {"listings": 3})
    )
    assert early.fingerprint == late.fingerprint == found.policy.fingerprint != other.fingerprint


def test_a_policy_of_the_first_version_keeps_its_fingerprint_which_knows_the_time(found, tmp_path):
    path = tmp_path / "policy.json"
    made = {**found.policy.calibration, "created": "2026-11-29T10:00:00+00:00"}
    replace(found.policy, calibration=made, version=1).save(path)
    content = json.loads(path.read_text())
    named = ("kind", "version", "fingerprint")
    body = {key: value for key, value in content.items() if key not in named}
    assert list(content)[:3] == list(named) and "checksum" not in content
    assert content["fingerprint"] == of_texts([json.dumps(body, ensure_ascii=False, sort_keys=True)])[:12]
    loaded = load_policy(path)
    assert loaded.fingerprint == content["fingerprint"] != found.policy.fingerprint
    content["calibration"]["created"] = "2026-11-30T10:00:00+00:00"
    path.write_text(json.dumps(content))
    with pytest.raises(PolicyError, match="was changed after it was made"):
        load_policy(path)


def test_a_policy_fits_only_results_that_are_made_alike(found, recall):
    with recall.view() as view:
        made = recall.provenance(view)
    assert found.policy.fits(made) is None
    for change, said in (
        ({"routes": ("bm25",)}, r"routes bm25 instead of bm25\+variant"),
        ({"encoder": "other"}, "encoder other instead of none"),
        ({"top_k": 5}, "top_k 5 instead of 10"),
        ({"label_key": "kind"}, "label_key kind instead of label"),
        ({"settings": {**made.settings, "depth": 50}}, "depth 50 instead of 100"),
    ):
        with pytest.raises(PolicyError, match=said):
            found.policy.fits(replace(made, **change))
    assert "are not those" in str(found.policy.fits(replace(made, seeds="others")))
    moved = replace(made, sequence=7)
    assert "has changed since change 0 (it is at 7)" in str(found.policy.fits(moved))
    with pytest.raises(PolicyError, match="another bank"):
        found.policy.fits(replace(moved, seeds="others"))


def test_decisions_say_what_speaks_for_them(found, recall):
    listing = {"text": "fraud1 fraud2 fraud3 fraud4 x1", "metadata": {"id": "new"}}
    [decided] = Decider(found.policy).decide(recall.recall([listing]))
    decision = decided["decision"]
    assert (decision["action"], decision["label"], decision["reason"]) == ("label", "fraud", None)
    assert decision["probability"] >= decision["threshold"] == found.policy.classes["fraud"].threshold
    assert "at least 95%" in decision["guarantee"]
    assert sum(one["share"] for one in decision["because"] + decision["against"]) == pytest.approx(1, abs=1e-12)
    assert {one["label"] for one in decision["because"]} == {"fraud"}
    assert "fraud" not in {one["label"] for one in decision["against"]}
    places = {entry["seed"] for entry in decision["because"]}
    assert places <= {metadata["id"] for metadata in decided["topk_metadata"]}
    assert decision["because"][0]["routes"]["bm25"] == decided["topk_evidence"][0]["bm25"]["rank"]


@pytest.mark.parametrize(
    ("text", "action", "reason"),
    [
        ("ok1 ok2 ok3 ok4 x9", "innocent", None),
        ("rare1 rare2 rare3 rare4", "review", "no_guarantee"),
        ("nothing like it", "review", "no_similar_seed"),
    ],
)
def test_other_decisions(found, recall, text, action, reason):
    [decided] = Decider(found.policy).decide(recall.recall([{"text": text}]))
    assert (decided["decision"]["action"], decided["decision"]["reason"]) == (action, reason)
    assert (decided["decision"]["guarantee"] is None) == (action == "review")


def test_what_is_decided_on_new_listings_keeps_the_promise(found, recall):
    new = listings(1500, seed=5, start=50_000)
    decided = Decider(found.policy).decide(recall.recall(new))
    automatic = [one for one in decided if one["decision"]["action"] != "review"]
    assert len(automatic) > 900
    wrong = sum(one["decision"]["label"] != one["metadata"]["label"] for one in automatic)
    assert wrong / len(automatic) <= 0.05


def test_results_of_other_routes_are_not_decided(found, seeds):
    other = pipeline(seeds, routes=("bm25",)).recall([{"text": "fraud1"}])
    with pytest.raises(PolicyError, match="no scores of routes"):
        Decider(found.policy).decide(other)
    more = pipeline(seeds, top_k=12).recall([{"text": "fraud1 fraud2"}])
    with pytest.raises(PolicyError, match="has 12 seeds"):
        Decider(found.policy).decide(more)
    with pytest.raises(RecordError, match="topk_sim, topk_seed, topk_metadata missing"):
        Decider(found.policy).decide([{"text": "x", "metadata": {}}])
