"""The queue, verdicts and undo: who gets what, and what an action and its reversal leave."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from ecom_rag.errors import UsageError
from ecom_rag.serving.journal import INNOCENT, Journal, LeaseLost, NothingToUndo, UnknownDecision, clock
from ecom_rag.serving.journal.agreement import agreement_of
from ecom_rag.serving.journal.items import is_chosen
from helpers.journals import automatic, put, to_review

TAKER = """
import sys
from ecom_rag.serving.journal import Journal
with Journal.open(sys.argv[1]) as journal:
    while (item := journal.next(sys.argv[2])) is not None:
        print(item.id)
"""


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "j.db", second_looks=0) as opened:
        yield opened


@pytest.fixture
def time(monkeypatch):
    """Both times, to be set; in seconds."""

    class Time:
        wall, ticks, boot = 1_000_000.0, 500.0, "boot 1"

    monkeypatch.setattr(clock, "wall", lambda: round(Time.wall * clock.SECOND))
    monkeypatch.setattr(clock, "ticks", lambda: round(Time.ticks * clock.SECOND))
    monkeypatch.setattr(clock, "boot", lambda: Time.boot)
    return Time


def taken(journal, actor, **options):
    """The texts that a person gets until nothing is left."""
    found = []
    while (item := journal.next(actor, **options)) is not None:
        found.append(item.record["text"])
    return found


def test_the_most_unsure_come_first(journal):
    put(
        journal,
        to_review("far", probability=0.2, threshold=0.9),
        to_review("near", probability=0.88, threshold=0.9),
        to_review("no threshold, two alike", probability=0.5, threshold=None, reason="no_guarantee"),
        to_review("no threshold, one ahead", probability=0.7, threshold=None, reason="no_guarantee"),
    )
    order = ["near", "no threshold, two alike", "no threshold, one ahead", "far"]
    assert [one.record["text"] for one in journal.waiting().items] in (order, [order[1], order[0], *order[2:]])
    assert sorted(taken(journal, "anna")) == sorted(order)


def test_the_old_do_not_starve(journal, time):
    put(journal, to_review("old and sure", probability=0.1, threshold=0.9))
    time.wall += 18 * 3600
    put(journal, to_review("unsure", probability=0.9, threshold=0.9))
    time.wall += 10 * 3600
    put(journal, to_review("unsure, much later", probability=0.9, threshold=0.9))
    assert taken(journal, "anna") == ["unsure", "old and sure", "unsure, much later"]


def test_larger_floods_come_first_and_one_text_of_each_at_a_time(journal):
    small = [to_review(f"small {n}", reason="flood", campaign="aaaaaaaaaaaa") for n in range(3)]
    large = [to_review(f"large {n}", reason="flood", campaign="bbbbbbbbbbbb") for n in range(30)]
    put(journal, *small, *large)
    first, second = journal.next("anna"), journal.next("ben")
    assert (first.record["text"], first.campaign_size) == ("large 0", 30)
    assert (second.record["text"], second.campaign_size) == ("small 0", 3)
    assert journal.next("cem") is None
    assert journal.verdict(first.id, actor="anna", label="ok") == 0  # none of them was decided so: each must be seen
    assert journal.next("anna").record["text"] == "large 1"
    assert journal.verdict(second.id, actor="ben", label="fraud", lease=second.lease) == 2
    assert journal.next("ben") is None
    assert (journal.counts().waiting, journal.counts().campaigns) == (29, 1)
    assert journal.undo("ben").kind == "verdict"
    assert (journal.counts().waiting, journal.counts().campaigns) == (32, 2)


def test_two_people_never_get_the_same_item_threads(journal):
    put(journal, *[to_review(f"text {number}") for number in range(120)])
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda number: taken(journal, f"person {number}"), range(8)))
    assert sorted(text for part in parts for text in part) == sorted(f"text {number}" for number in range(120))


def test_two_people_never_get_the_same_item_processes(journal):
    ids = put(journal, *[to_review(f"text {number}") for number in range(150)])
    runs = [
        subprocess.Popen([sys.executable, "-c", TAKER, str(journal.path), f"person {n}"], stdout=subprocess.PIPE)
        for n in range(3)
    ]
    told = [run.communicate(timeout=120)[0].decode().split() for run in runs]
    assert sorted(id_ for part in told for id_ in part) == sorted(ids)


def test_a_lease_ends_by_time_release_verdict_and_skip(journal, time):
    put(journal, to_review("only one"))
    item = journal.next("anna", lease_seconds=60)
    assert journal.next("ben") is None and journal.held("anna") == [(item.id, item.lease)]
    time.ticks += 60
    assert journal.next("ben").id == item.id and journal.held("anna") == []
    with pytest.raises(LeaseLost, match="is with another person now"):
        journal.verdict(item.id, actor="anna", label="fraud", lease=item.lease)
    journal.release(item.id, actor="ben")
    again = journal.next("anna")
    journal.skip(again.id, actor="anna", lease=again.lease)
    assert journal.next("ben").id == item.id
    journal.verdict(item.id, actor="ben", label="fraud")
    with pytest.raises(LeaseLost, match="was answered by another person"):
        journal.verdict(item.id, actor="anna", label="ok", lease=again.lease)
    journal.verdict(item.id, actor="anna", label="ok")  # who says it without a lease means it
    assert journal.get(item.id).label == "ok"


def test_clocks_that_are_set_make_no_lease_eternal(journal, time):
    put(journal, to_review("only one"))
    item = journal.next("anna", lease_seconds=60)
    time.wall -= 10_000  # the clock does not count while the machine runs
    assert journal.next("ben") is None
    time.wall += 20_000
    assert journal.next("ben") is None
    time.ticks += 61
    assert journal.next("anna", lease_seconds=60).id == item.id
    time.boot, time.ticks = "boot 2", 3.0  # the machine was restarted: the clock counts
    assert journal.next("ben") is None
    time.wall += 61
    assert journal.next("anna", lease_seconds=60).id == item.id
    time.boot, time.wall = "boot 3", time.wall - 5
    assert journal.next("ben").id == item.id


def test_leases_and_skips_outlive_the_service(journal):
    first, second = put(journal, to_review("one", probability=0.8), to_review("two"))
    journal.skip(first, actor="anna")
    assert journal.next("ben").id == first
    with Journal.open(journal.path, second_looks=0) as again:
        assert again.next("anna").id == second
        assert again.next("anna") is None
        again.release(first, actor="ben")
        assert again.next("anna").id == first  # what was skipped comes last, but comes


def test_filters_see_the_metadata_and_the_decision(journal):
    put(
        journal,
        to_review("a", reason="flood", campaign="aaaaaaaaaaaa", shop={"vip": True}, price=3),
        to_review("b", shop={"vip": False}, price=30),
        automatic("c", price=300),
    )

    def texts(page):
        return [one.record["text"] for one in page.items]

    assert texts(journal.waiting('decision.reason = "flood"')) == ["a"]
    assert texts(journal.waiting({"shop.vip": False})) == ["b"]
    assert texts(journal.decisions(filter="price >= 30")) == ["c", "b"]
    assert journal.next("anna", filter="price > 30") is None
    assert journal.next("anna", filter="price > 3 and not shop.vip = true").record["text"] == "b"
    with pytest.raises(UsageError, match="filter"):
        journal.waiting("price >")


def test_lists_come_in_parts(journal):
    put(journal, *[to_review(f"text {n}", probability=0.1 + n / 20) for n in range(10)])
    for call, order in ((journal.waiting, range(9, -1, -1)), (journal.decisions, range(9, -1, -1))):
        found, cursor = [], None
        while True:
            page = call(limit=3, cursor=cursor)
            found += [one.record["text"] for one in page.items]
            cursor = page.cursor
            if cursor is None:
                break
        assert found == [f"text {n}" for n in order]
    for bad in ("x", "1.2.3", "1e5", ""):
        with pytest.raises(UsageError, match="`cursor`"):
            journal.waiting(cursor=bad)


def test_counts(journal, time):
    put(journal, to_review("a"), to_review("b", label="spam"))
    time.wall += 2 * 3600
    ids = put(journal, to_review("c", reason="seeds_disagree"), to_review("d"), automatic("e"))
    journal.escalate(ids[1], actor="anna", note="who knows")
    journal.next("anna")
    found = journal.counts()
    assert (found.waiting, found.campaigns, found.escalated, found.leased) == (3, 3, 1, 1)
    assert found.by_reason == {"below_threshold": 2, "seeds_disagree": 1}
    assert found.by_label == {"fraud": 2, "spam": 1} and found.by_policy == {"a policy": 3}
    assert found.by_age == {"hour": 1, "day": 2, "week": 0, "older": 0} and found.oldest_seconds == 7200


def test_the_escalated_wait_apart(journal):
    [id_] = put(journal, to_review("hard"))
    item = journal.next("anna")
    journal.escalate(id_, actor="anna", note="unclear", lease=item.lease)
    assert journal.next("ben") is None and journal.get(id_).state == "escalated"
    assert journal.next("chief", queue="escalated").id == id_
    journal.verdict(id_, actor="chief", label="ok", innocent=True)
    assert journal.next("chief", queue="escalated") is None
    assert [entry.kind for entry in journal.get(id_).history] == ["escalate", "verdict"]


def test_verdicts(journal):
    [id_] = put(journal, automatic("decided alone"))
    for wrong in ({}, {"label": [1]}, {"label": "  "}):
        with pytest.raises(UsageError, match="label"):
            journal.verdict(id_, actor="anna", **wrong)
    with pytest.raises(UnknownDecision, match="'dec_none': is not in the journal"):
        journal.verdict("dec_none", actor="anna", label="fraud")
    with pytest.raises(UsageError, match="`actor`"):
        journal.verdict(id_, actor=" ", label="fraud")
    journal.verdict(id_, actor="anna", label=1.0)
    assert journal.get(id_).label == "1"
    journal.verdict(id_, actor="ben", innocent=True, note="a joke")
    found = journal.get(id_)
    assert (found.label, found.state) == (INNOCENT, "answered")
    assert found.history[1].supersedes == found.history[0].sequence
    assert journal.undo("ben").body["note"] == "a joke" and journal.get(id_).label == "1"
    assert journal.undo("anna").body["label"] == "1" and journal.get(id_).state == "automatic"


def test_undo_goes_back_one_after_the_other_also_after_a_restart(journal):
    one, two = put(journal, to_review("one"), to_review("two"))
    journal.verdict(one, actor="anna", label="fraud")
    journal.seed_added(one, actor="anna", bank="seeds", seed_id="s9")
    journal.skip(two, actor="anna")
    journal.verdict(two, actor="ben", label="ok")
    assert journal.undo("anna").kind == "skip"
    with Journal.open(journal.path, second_looks=0) as again:
        seed = again.undo("anna")
        assert (seed.kind, seed.body, seed.decision) == ("seed_added", {"bank": "seeds", "seed_id": "s9"}, one)
        assert again.undo("anna").kind == "verdict"
        for _ in range(2):  # an undo is nothing that can be undone
            with pytest.raises(NothingToUndo, match="anna: there is nothing left to undo"):
                again.undo("anna")
        assert again.get(one).state == "waiting" and again.get(two).label == "ok"
        again.note(one, actor="anna", note="after all")
        assert again.undo("anna").body == {"note": "after all"}
        assert [entry.kind for entry in again.get(one).history][-2:] == ["note", "undo"]
        again.verify()


def test_undo_is_twenty_deep(journal):
    ids = put(journal, *[to_review(f"text {n}") for n in range(25)])
    for id_ in ids:
        journal.verdict(id_, actor="anna", label="fraud")
    undone = [journal.undo("anna").decision for _ in range(20)]
    assert undone == ids[:4:-1]
    with pytest.raises(NothingToUndo):
        journal.undo("anna")


def test_a_text_that_was_settled_and_seen_falls_back_as_far_as_it_must(journal):
    flood = [to_review(f"flood {n}", reason="flood", campaign="aaaaaaaaaaaa") for n in range(3)]
    first, second, third = put(journal, *flood)
    assert journal.verdict(first, actor="anna", label="fraud") == 2
    assert {journal.get(id_).state for id_ in (second, third)} == {"settled"}
    journal.verdict(second, actor="ben", label="spam")
    journal.undo("anna")
    assert [journal.get(id_).state for id_ in (first, second, third)] == ["waiting", "answered", "waiting"]
    journal.undo("ben")
    assert journal.counts().waiting == 3


def test_a_blind_second_look(tmp_path):
    with Journal.open(tmp_path / "j.db", second_looks=1) as journal:
        [id_] = put(journal, to_review("look twice"))
        item = journal.next("anna")
        journal.verdict(id_, actor="anna", label="fraud", lease=item.lease)
        assert journal.next("anna") is None and journal.counts().second_looks == 1
        again = journal.next("ben")
        assert again.id == id_ and again.record == item.record and not hasattr(again, "label")
        journal.verdict(id_, actor="ben", label="spam", lease=again.lease)
        found = journal.get(id_)
        assert found.label == "fraud" and [entry.kind for entry in found.history] == ["verdict", "second"]
        assert journal.next("cem") is None
        assert (journal.agreement().pairs, journal.agreement().share) == (1, 0.0)
        assert journal.agreement().disagreements == [("fraud", "spam", 1)]
        assert journal.undo("ben").kind == "second" and journal.agreement().pairs == 0
        assert journal.next("cem").id == id_


def test_the_share_of_second_looks_is_drawn_by_the_id():
    drawn = [f"dec_{number:020x}" for number in range(20_000) if is_chosen(f"dec_{number:020x}", 0.05)]
    assert 900 < len(drawn) < 1100 and all(is_chosen(id_, 0.1) for id_ in drawn)
    assert not is_chosen("dec_1", 0) and is_chosen("dec_1", 1)


def test_kappa_of_the_textbook():
    """Of 50 proposals, 20 both yes, 15 both no, 5 and 10 apart: observed 0.7, by chance 0.5, kappa 0.4."""
    found = agreement_of([("yes", "yes", 20), ("yes", "no", 5), ("no", "yes", 10), ("no", "no", 15)])
    assert found.share == 0.7 and found.kappa == pytest.approx(0.4)
    assert found.disagreements == [("no", "yes", 10), ("yes", "no", 5)]
    assert agreement_of([("yes", "yes", 3)]).kappa is None and agreement_of([]).share is None


def test_no_call_reads_a_whole_table(journal):
    """By the plans of all statements that the calls run: searches, or a walk along the index of the queue."""
    statements = set()
    ids = put(journal, *[to_review(f"text {n}") for n in range(50)])
    journal.decisions()  # opens the reader
    for db in (journal._store._writer, *journal._store._idle):
        db.set_trace_callback(statements.add)
    journal.admit_and_record([automatic("one"), to_review("two")], bank="b", sequence=1, actor="shop")
    item = journal.next("anna")
    journal.verdict(item.id, actor="anna", label="fraud", lease=item.lease)
    journal.skip(ids[7], actor="anna")
    journal.escalate(ids[8], actor="anna")
    for _ in range(3):
        journal.undo("anna")
    for call in (journal.waiting, journal.decisions, journal.counts, journal.agreement, lambda: journal.get(ids[0])):
        call()
    for queue in ("review", "escalated"):
        journal.next("ben", queue=queue)
        journal.next("ben", queue=queue, filter='label = "none"')
    list(journal.export("verdicts"))
    db = journal._store._writer
    db.set_trace_callback(None)
    plans = [
        (step[-1], sql)
        for sql in statements
        if sql.startswith(("SELECT", "UPDATE", "DELETE", "INSERT OR"))
        for step in db.execute(f"EXPLAIN QUERY PLAN {sql}")
    ]
    assert len(statements) > 40
    small = {"head", "leases", "l", "own", "flood_counts", "flood_examples", "flood_looks", "c", "x"}
    whole = [(step, sql) for step, sql in plans if step.startswith("SCAN") and step.split()[1] not in small]
    assert [step for step, _ in whole if "INDEX" not in step and "CONSTANT" not in step] == []
    assert {step for step, _ in plans if " w " in f"{step} " and "SCAN" in step} == {
        "SCAN w USING COVERING INDEX queue"
    }
    assert not [sql for step, sql in plans if "entries" in step and "SCAN" in step]
