"""The audit: every kind of finding is planted and found, and what nobody planted is left alone."""

import json

import numpy as np
import pytest

from ecom_rag.decision.audit import TOP_K, audit
from ecom_rag.decision.audit_files import as_text, audit_file
from ecom_rag.decision.audit_findings import KINDS
from ecom_rag.decision.examined import examine, to_search
from ecom_rag.decision.own_seeds import labelled_seeds
from ecom_rag.decision.settings import Auditing
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.pipeline import Recall, recall_file
from ecom_rag.seeds.bank import BankSettings, SeedBank, build
from helpers.jsonl import lines, write
from helpers.listings import LABELS, ROUTES, listings, pipeline

WRONG = range(0, 600, 20)  # 5 % of the seeds


def relabelled(record, label):
    return {**record, "metadata": {**record["metadata"], "label": label}}


def clear(count, **options):
    """Listings most of whose words tell their class."""
    for one in listings(count, noise=0, **options):
        words = sorted(one["text"].split(), key=lambda word: word[0] == "x")
        yield {**one, "text": " ".join(words[:6])}


def planted():
    """Seeds of which every twentieth has another label than its words."""
    seeds = list(clear(600, seed=0))
    random = np.random.default_rng(0)
    for place in WRONG:
        own = seeds[place]["metadata"]["label"]
        seeds[place] = relabelled(seeds[place], str(random.choice([one for one in LABELS if one != own])))
    return seeds


def flood(count=60, *, label="ok"):
    """Copies of one text of medical words, with the wrong label."""
    text = "medical1 medical3 medical5 medical7 medical9 medical11 z1 z2 z3 z4"
    return [
        {"text": f"{text} {'!' * (number % 4)}", "metadata": {"id": f"f{number}", "label": label}}
        for number in range(count)
    ]


def of_kind(found, kind):
    return [one for one in found.findings if one["audit"]["kind"] == kind]


def ids(items):
    return [one["audit"]["seed"] for one in items]


@pytest.fixture(scope="module")
def recall():
    return pipeline([*planted(), *flood(), *flood(3, label="medical")[:1]], top_k=TOP_K)


@pytest.fixture(scope="module")
def clean():
    """Seeds without a wrong label."""
    return pipeline(clear(300, seed=3), top_k=TOP_K)


@pytest.fixture(scope="module")
def found(recall):
    return audit(recall, Auditing(innocent=("ok",)), queries=recall.recall(listings(300, seed=1, start=9000)))


def test_planted_wrong_labels_are_found_and_little_else(found):
    conflicts = set(ids(of_kind(found, "conflict")))
    wrong = {f"r{place}" for place in WRONG}
    assert len(conflicts & wrong) >= 0.8 * len(wrong)
    assert len(conflicts & wrong) >= 0.8 * len(conflicts)
    for one in of_kind(found, "conflict"):
        said = one["audit"]
        if said["seed"] in wrong:
            told = max(LABELS, key=one["text"].count)
            assert said["suggested"] == told != said["label"] == one["metadata"]["label"]
            assert said["own_probability"] < 0.5 < said["probability"]
            assert 1 <= len(said["because"]) <= 5
            assert {near["label"] for near in said["because"]} & {said["suggested"]}


def test_a_bank_without_wrong_labels_has_hardly_a_conflict(clean):
    found = audit(clean)
    assert len(of_kind(found, "conflict")) <= 3
    assert found.counts.keys() <= {"conflict", "thin_class"}


def test_copies_do_not_confirm_one_another():
    """Sixty copies with one wrong label outnumber every neighbour, if they are asked."""
    recall = pipeline([*listings(300, seed=0, noise=0), *flood()], top_k=TOP_K)
    found = audit(recall)
    reported = of_kind(found, "conflict")
    assert {f"f{number}" for number in range(60)} <= set(ids(reported))
    own = [one["audit"] for one in reported if one["audit"]["seed"].startswith("f")]
    assert {one["suggested"] for one in own} == {"medical"}
    assert all(not near["seed"].startswith("f") for one in own for near in one["because"])
    assert found.counts["conflict"][0] == len({one["audit"]["campaign"] for one in reported}) <= 3
    [copies] = of_kind(found, "duplicate")
    assert (copies["audit"]["seeds"], len(copies["audit"]["others"])) == (60, 59)


def test_a_campaign_with_two_labels_is_a_conflict_once(found):
    """The neighbours decide between them, not the number of copies."""
    reported = of_kind(found, "duplicate_conflict")
    assert set(ids(reported)) == {f"f{number}" for number in range(60)}
    assert {(one["audit"]["label"], one["audit"]["suggested"]) for one in reported} == {("ok", "medical")}
    assert reported[0]["audit"]["because"][0]["label"] == "medical"
    assert not set(ids(reported)) & set(ids(of_kind(found, "conflict")))
    assert of_kind(found, "duplicate") == []


def test_two_labels_that_nothing_decides_between_are_both_reported():
    twins = [{"text": "龘龘靐 爩爩龗 厵厵麤", "metadata": {"id": label, "label": label}} for label in LABELS[:2]]
    found = audit(pipeline([*listings(120, seed=0), *twins], top_k=TOP_K, routes=("bm25",)))
    reported = of_kind(found, "duplicate_conflict")
    assert sorted(ids(reported)) == sorted(LABELS[:2])
    assert {(one["audit"]["suggested"], one["audit"]["probability"]) for one in reported} == {(None, None)}


def test_seeds_that_are_hit_and_wrong_by_campaigns_not_rows(recall):
    """One listing of another label in three hundred copies says as much as one."""
    listing = {"text": "fraud1 fraud2 fraud3 fraud4 fraud5 fraud6", "metadata": {"label": "ok"}}
    copies = [{**listing, "text": listing["text"] + "!" * (number % 5)} for number in range(300)]
    few = audit(recall, queries=recall.recall(copies))
    assert of_kind(few, "hit_and_wrong") == []
    many = recall.recall([relabelled(one, "ok") for one in listings(200, seed=5, start=9000)])
    reported = of_kind(audit(recall, queries=many), "hit_and_wrong")
    assert len(reported) > 50
    assert all(one["audit"]["label"] != "ok" == one["audit"]["suggested"] for one in reported)
    first = reported[0]["audit"]
    assert first["campaigns_wrong"] == first["campaigns"] >= reported[-1]["audit"]["campaigns_wrong"] >= 4


def test_wrong_seeds_are_hit_and_wrong(found):
    reported = set(ids(of_kind(found, "hit_and_wrong")))
    assert len(reported & {f"r{place}" for place in WRONG}) >= 0.8 * len(reported) > 5


def test_never_hit_needs_no_labels(recall):
    queries = recall.recall([{"text": one["text"]} for one in listings(30, seed=1)])
    found = audit(recall, Auditing(first=5), queries=queries)
    hit = {one["id"] for result in queries for one in result["topk_metadata"][:5]}
    reported = set(ids(of_kind(found, "never_hit")))
    assert not hit & reported
    assert any(one.startswith("f") for one in hit) == (not any(one.startswith("f") for one in reported))
    others = {one for one in reported | hit if one.startswith("r")}
    assert others == {f"r{number}" for number in range(600)}
    assert any("have no labels" in note for note in found.notes)
    assert of_kind(found, "hit_and_wrong") == []


def test_thin_classes_say_how_many_campaigns_are_missing(found):
    [thin] = of_kind(found, "thin_class")
    said = thin["audit"]
    assert said["label"] == "rare"
    assert said["campaigns"] + said["campaigns_missing"] == said["campaigns_needed"] == 45
    assert {one.label: one.missing for one in found.classes if one.missing} == {"rare": said["campaigns_missing"]}


def test_a_label_of_one_campaign_is_no_conflict():
    """Nothing could ever speak for it."""
    alone = [{"text": "fraud1 fraud2 fraud3 fraud4", "metadata": {"id": "alone", "label": "only"}}]
    found = audit(pipeline([*listings(300, seed=0, noise=0), *alone], top_k=TOP_K))
    assert "alone" not in ids(of_kind(found, "conflict"))
    assert "nothing can speak for its label" in next(
        one["audit"]["why"] for one in of_kind(found, "thin_class") if one["audit"]["label"] == "only"
    )


def test_no_evidence_where_nothing_is_similar():
    lonely = [
        {"text": f"龘龘靐 爩爩龗 厵厵麤 {'!' * number}", "metadata": {"id": f"l{number}", "label": "ok"}}
        for number in range(3)
    ]
    found = audit(pipeline([*listings(120, seed=0), *lonely], top_k=TOP_K, routes=("bm25",)))
    assert ids(of_kind(found, "no_evidence")) == ["l0", "l1", "l2"]
    assert "l0" not in ids(of_kind(found, "conflict"))


def test_near_innocents_in_both_directions(found, recall):
    reported = of_kind(found, "near_innocent")
    assert {one["audit"]["label"] == "ok" for one in reported} == {True, False}
    for one in reported:
        nearest = one["audit"]["because"][0]["label"]
        assert (nearest == "ok") != (one["audit"]["label"] == "ok")
    without = audit(recall)
    assert of_kind(without, "near_innocent") == []
    assert any("no label is innocent" in note for note in without.notes)


def test_the_most_urgent_comes_first(found):
    order = [list(KINDS).index(one["audit"]["kind"]) for one in found.findings]
    assert order == sorted(order)
    ratio = [
        (one["audit"]["probability"] + 1e-6) / (one["audit"]["own_probability"] + 1e-6)
        for one in of_kind(found, "conflict")
    ]
    assert ratio == sorted(ratio, reverse=True)


def test_few_seeds_vote():
    seeds = listings(45, seed=0, noise=0)
    seeds[0] = relabelled(seeds[0], "medical")
    found = audit(pipeline(seeds, top_k=TOP_K))
    assert any("too few campaigns" in note for note in found.notes)
    assert "r0" in ids(of_kind(found, "conflict"))


def test_only_the_first_copies_of_a_flood_are_searched():
    group = np.array([1, 0, 0, 2, 0, 0, 1])
    assert to_search(group, 2).tolist() == [0, 1, 2, 3, 6]


def test_probabilities_of_a_group_are_those_of_its_seeds(clean):
    """By hand, from the verdicts of each seed."""
    from ecom_rag.decision.combiner import combiner_of, verdicts
    from ecom_rag.decision.own_seeds import seeds_as_listings

    with clean.view() as view:
        seeds = labelled_seeds(view, "label", similarity=0.85)
        examined = examine(clean, view, seeds)
        neighbours, truth = seeds_as_listings(clean, view, seeds)
    said = verdicts(combiner_of(neighbours, truth, seeds.labels, ROUTES, TOP_K), neighbours)
    for row, own in enumerate(truth.tolist()):
        named = dict(zip(said.classes[row].tolist(), said.probabilities[row].tolist(), strict=True))
        assert examined.own[row] == pytest.approx(named.get(own, 0), abs=1e-6)
        others = {one: p for one, p in named.items() if one not in (own, -1)}
        assert examined.probability[row] == pytest.approx(max(others.values(), default=0), abs=1e-6)


def test_a_bank_is_audited_and_left_as_it_is(tmp_path):
    """The findings are what ``bank delete`` and ``bank add`` take."""
    seeds = [*planted()[:300], {"text": "no label"}]
    build(tmp_path / "bank", seeds, BankSettings(routes=ROUTES))
    write(tmp_path / "new.jsonl", listings(60, seed=1, start=9000))
    recall_file(tmp_path / "new.jsonl", tmp_path / "r.jsonl", Recall(routes=ROUTES), bank=tmp_path / "bank")
    asked = Auditing(innocent=("ok",))
    for name in ("a", "b"):
        found = audit_file(
            tmp_path / f"{name}.jsonl",
            asked,
            bank=tmp_path / "bank",
            queries=tmp_path / "r.jsonl",
            report=tmp_path / f"{name}.html",
        )
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    items = lines(tmp_path / "a.jsonl")
    assert items == found.findings
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<script" not in page and items[0]["text"][:20] in page
    assert "conflict" in as_text(found) and any("no label" in note for note in found.notes)
    wrong = [one for one in items if one["audit"]["kind"] == "conflict"]
    with SeedBank.open(tmp_path / "bank") as bank:
        assert (len(bank), bank.sequence) == (301, 1)
        bank.delete([wrong[0]["audit"]["seed"]])
        bank.upsert([relabelled(one, one["audit"]["suggested"]) for one in wrong])
        assert len(bank) == 301
        assert bank.get([wrong[0]["audit"]["seed"]])[0]["metadata"]["label"] == wrong[0]["audit"]["suggested"]
    again = audit_file(tmp_path / "c.jsonl", asked, bank=tmp_path / "bank", queries=tmp_path / "r.jsonl")
    assert len(of_kind(again, "conflict")) < len(wrong) / 3
    assert any("before they changed" in note for note in again.notes)


def test_a_file_of_seeds_is_audited_too(tmp_path):
    write(tmp_path / "seeds.jsonl", planted()[:300])
    found = audit_file(tmp_path / "out.parquet", Auditing(), seeds=tmp_path / "seeds.jsonl")
    assert found.counts["conflict"][0] > 5


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Auditing(conflict=1.5), "`conflict` is 1.5; expected a number between 0 and 1"),
        (Auditing(first=0), "first"),
        (Auditing(similarity=0.1), "similarity"),
        (Auditing(innocent=("nothing",)), "no seed has the innocent label 'nothing'; labels of the seeds: fraud"),
    ],
)
def test_settings_that_make_no_sense(clean, asked, said):
    with pytest.raises(UsageError, match=r"^[^\n]*$") as raised:
        audit(clean, asked)
    assert said in str(raised.value)


def test_results_that_do_not_fit(clean, tmp_path):
    other = pipeline([{"text": "fraud1", "metadata": {"id": "elsewhere", "label": "ok"}}])
    with pytest.raises(UsageError, match="none of the seeds that the results name"):
        audit(clean, queries=other.recall([{"text": "fraud1"}]))
    with pytest.raises(RecordError, match="result 1: topk_sim, topk_seed, topk_metadata missing"):
        audit(clean, queries=[{"text": "a"}])
    with pytest.raises(UsageError, match="no seed has a label"):
        audit(pipeline([{"text": "a"}, {"text": "b"}]))
    write(tmp_path / "s.jsonl", listings(30, seed=0))
    with pytest.raises(UsageError, match="named for two outputs"):
        audit_file(tmp_path / "a.jsonl", Auditing(), seeds=tmp_path / "s.jsonl", report=tmp_path / "a.jsonl")
    with pytest.raises(UsageError, match="one place to search is needed"):
        audit_file(tmp_path / "a.jsonl", Auditing())


def test_findings_are_json(found):
    assert json.loads(json.dumps(found.findings)) == found.findings
