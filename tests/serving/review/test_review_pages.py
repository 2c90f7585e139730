"""The pages without a browser: every form, every notice, who may do what, and hostile texts."""

import json
import re
from html import unescape

import pytest
from starlette.testclient import TestClient

from ecom_rag.serving.journal import overview
from ecom_rag.serving.review.languages import TABLES
from ecom_rag.serving.review.pages import HEADERS
from helpers.reviewing import EVIL, HIDDEN, MANY, World, decided


@pytest.fixture
def world(tmp_path):
    found = World(tmp_path)
    yield found
    found.journal.close()


@pytest.fixture
def anna(world):
    return client(world, "anna")


def client(world, name, language="en"):
    return TestClient(world.app, cookies={"who": name} if name else {}, headers={"Accept-Language": language})


def fields(page):
    """The hidden fields of the form of the open item."""
    form = page.text.split('id="answer"')[1]
    return dict(re.findall(r'<input type="hidden" name="(decision|lease|view)" value="([^"]*)"', form))


def own(page):
    found = fields(page)
    return {"decision": found["decision"], "lease": found["lease"]}


def said(page):
    found = re.search(r'<p class="notice \w+" role="\w+">(.*?)</p>', page.text, re.S)
    return unescape(re.sub(r"<[^>]+>", "", found[1])).strip() if found else None


def test_nobody_sees_anything_without_logging_in(world):
    world.fill()
    page = client(world, None)
    for path in ("", "/dashboard", "/history", "/export", "/seed?decision=x", "/export?kind=training"):
        found = page.get(f"/review{path}", follow_redirects=False)
        assert (found.status_code, found.headers["location"]) == (303, "/review/login"), path
    for path in ("/answer", "/open", "/filter", "/leave", "/undo", "/seed"):
        data = {"decision": "x", "lease": "y", "view": "z", "label": "fraud", "seed_id": "i"}
        found = page.post(f"/review{path}", data=data, follow_redirects=False)
        assert (found.status_code, found.headers["location"]) == (303, "/review/login"), path


def test_logging_in_and_out(world):
    world.fill()
    page = client(world, None)
    wrong = page.post("/review/login", data={"key": "nonsense"})
    assert wrong.status_code == 401 and "not valid" in said(wrong) and "nonsense" not in wrong.text
    assert 'id="answer"' in page.post("/review/login", data={"key": "key-anna"}).text
    assert 'name="key"' in page.post("/review/logout").text
    assert 'name="key"' in page.get("/review").text


def test_every_answer_has_the_headers(world, anna):
    world.fill()
    for path in (
        "",
        "/login",
        "/dashboard",
        "/history",
        "/export",
        "/static/review.css",
        "/static/none",
        "/seed?decision=x",
    ):
        found = anna.get(f"/review{path}")
        assert {name: found.headers[name] for name in HEADERS} == HEADERS, path
        assert ("no-store" in found.headers["cache-control"]) == (found.status_code != 200 or "static" not in path)
    assert anna.get("/review/static/none").status_code == 404


def test_hostile_texts_are_shown_and_not_obeyed(world, anna):
    world.put(decided(EVIL, **{EVIL: EVIL}))
    world.put(decided(HIDDEN))
    for path in ("", "/history", "/dashboard"):
        page = anna.get(f"/review{path}").text
        assert "<script>window" not in page and "<img src=x" not in page
        assert not re.search("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]", page), path
    page = anna.get("/review")
    assert "&lt;script&gt;" in page.text and "{{7*7}}" in page.text and "[RLO]" in page.text
    anna.post("/review/answer", data={**own(page), "note": EVIL, "label": "fraud"})
    assert "<script>window" not in anna.get("/review/history").text
    found = anna.get("/review", params={"said": "undo", "what": EVIL, "of": EVIL, "filter": EVIL, "queue": EVIL})
    assert "<script>window" not in found.text and "<img src=x" not in found.text


def test_a_lone_surrogate_does_not_break_the_page(world, anna):
    world.put(decided("a\\ud83d b"), decided("\u0000 c"))
    assert anna.get("/review").status_code == 200


def test_a_label_is_a_verdict(world, anna):
    world.fill()
    page = anna.get("/review")
    found = anna.post("/review/answer", data={**own(page), "label": "spam", "note": "why"})
    assert said(found).startswith("Saved: spam.")
    entry = world.journal.get(own(page)["decision"]).history[0]
    assert (entry.kind, entry.actor, entry.body) == (
        "verdict",
        "anna",
        {"label": "spam", "innocent": False, "note": "why"},
    )
    assert own(found)["decision"] != own(page)["decision"]


@pytest.mark.parametrize("name", ["innocent", "do"])
def test_innocent_is_said_in_two_ways(world, anna, name):
    world.fill()
    page = anna.get("/review")
    anna.post("/review/answer", data={**own(page), **({"do": "innocent"} if name == "do" else {"label": "innocent"})})
    assert world.journal.get(own(page)["decision"]).history[0].body["innocent"] is True


def test_more_labels_than_keys(world, anna):
    world.labels = MANY
    world.fill()
    page = anna.get("/review")
    assert re.findall(r'data-key="(\d)"', page.text) == [*"12345678", "0"] and 'data-focus="9"' in page.text
    assert '<option value="spam">' in page.text
    found = anna.post("/review/answer", data={**own(page), "do": "other", "other": "spam"})
    assert said(found).startswith("Saved: spam.")
    found = anna.post("/review/answer", data={**own(found), "do": "enter", "other": "fraud"})
    assert said(found).startswith("Saved: fraud.")
    found = anna.post("/review/answer", data={**own(found), "do": "other", "other": "no such"})
    assert "does not have this label" in said(found)


def test_skip_escalate_note_and_put_back(world, anna):
    world.fill()
    first = anna.get("/review")
    assert "Skipped" in said(anna.post("/review/answer", data={**own(first), "do": "skip"}))
    second = anna.get("/review")
    assert own(second) != own(first)
    assert "note is saved" in said(anna.post("/review/answer", data={**own(second), "do": "enter", "note": "hm"}))
    assert own(anna.get("/review")) == own(second)  # a note keeps the item
    assert "note is empty" in said(anna.post("/review/answer", data={**own(second), "do": "note", "note": " "}))
    anna.post("/review/answer", data={**own(second), "do": "escalate", "note": "expert"})
    assert world.journal.counts().escalated == 1
    third = anna.get("/review")
    assert "back in the queue" in said(anna.post("/review/answer", data={**own(third), "do": "release"}))
    page = anna.post("/review/filter", data={"queue": "escalated"})
    assert own(page)["decision"] == own(second)["decision"]


def test_two_people_never_get_the_same_item(world):
    world.fill(6)
    open_ = [own(client(world, f"person {n}").get("/review"))["decision"] for n in range(6)]
    assert len(set(open_)) == 6
    assert 'id="answer"' not in client(world, "late").get("/review").text
    again = [own(client(world, f"person {n}").get("/review"))["decision"] for n in range(6)]
    assert again == open_


def test_a_lost_lease_writes_nothing(world, anna):
    world.fill()
    page = anna.get("/review")
    world.journal.release(own(page)["decision"], actor="anna", lease=own(page)["lease"])
    bert = client(world, "bert")
    assert own(bert.get("/review"))["decision"] == own(page)["decision"]
    before = world.journal.head()
    for data in (
        {"label": "fraud"},
        {"do": "skip"},
        {"do": "escalate"},
        {"do": "note", "note": "x"},
        {"do": "innocent"},
    ):
        found = anna.post("/review/answer", data={**own(page), **data})
        assert "nothing was saved" in said(found)
    assert world.journal.head() == before
    found = anna.post("/review/seed", data={**own(page), "label": "fraud", "seed_id": "x", "answer": "1"})
    assert "nothing was saved" in said(found) and not world.seeds


def test_a_lease_ends_by_itself(tmp_path):
    world = World(tmp_path, lease_seconds=0.0)
    world.fill(3)
    page = client(world, "anna").get("/review")
    assert page.status_code == 200 and 'id="answer"' not in page.text  # over before it was shown
    world.journal.close()


def test_leaving_a_page_gives_the_item_back_unless_a_later_page_shows_it(world):
    world.fill()
    app = world.app
    anna = TestClient(app, cookies={"who": "anna"})
    first, second = fields(anna.get("/review")), fields(anna.get("/review"))
    assert first["lease"] == second["lease"] and first["view"] != second["view"]
    assert anna.post("/review/leave", data=first).status_code == 204
    assert world.journal.held("anna") == [(first["decision"], first["lease"])]
    anna.post("/review/leave", data=second)
    assert world.journal.held("anna") == []


def test_opening_an_item_of_the_list(world, anna):
    ids = world.fill()
    first = own(anna.get("/review"))["decision"]
    other = next(one for one in ids if one != first)
    assert own(anna.post("/review/open", data={"decision": other}))["decision"] == other
    assert [held for held, _ in world.journal.held("anna")] == [other]
    bert = client(world, "bert")
    assert "nothing was saved" in said(bert.post("/review/open", data={"decision": other}))
    assert bert.post("/review/open", data={"decision": "nonsense"}).status_code == 404


def test_the_filter_chooses_and_says_what_is_wrong_with_it(world, anna):
    world.fill()
    page = anna.post("/review/filter", data={"filter": 'decision.reason = "flood"'})
    assert world.journal.get(own(page)["decision"]).record["decision"]["reason"] == "flood"
    found = anna.post("/review/answer?filter=decision.reason+%3D+%22flood%22", data={**own(page), "label": "fraud"})
    assert world.journal.get(own(found)["decision"]).record["decision"]["reason"] == "flood"  # the filter stays
    wrong = anna.post("/review/filter", data={"filter": "decision.reason ="})
    assert "The filter cannot be read: filter, character 18" in wrong.text and 'id="answer"' not in wrong.text
    assert "No waiting item matches" in anna.post("/review/filter", data={"filter": 'shop = "none"'}).text
    assert 'id="answer"' in anna.post("/review/filter", data={"filter": "x = 1", "clear": "1"}).text


def test_a_second_look_is_blind_and_shows_both_answers_where_they_differ(tmp_path):
    world = World(tmp_path, second_looks=1.0)
    world.put(decided("only one"))
    anna, bert = client(world, "anna"), client(world, "bert")
    anna.post("/review/answer", data={**own(anna.get("/review")), "label": "spam", "note": "my secret reason"})
    page = bert.get("/review")
    assert "my secret reason" not in page.text and "anna" not in page.text
    assert "my secret reason" not in bert.get("/review/history").text
    assert "my secret reason" in anna.get("/review/history").text
    found = bert.post("/review/answer", data={**own(page), "label": "fake"})
    assert "you said fake, anna said spam." in said(found) and "my secret reason" in said(found)
    assert "my secret reason" in bert.get("/review/history").text
    assert "Second look" not in anna.get("/review?said=second&of=" + own(page)["decision"]).text
    kinds = [one.kind for one in world.journal.get(own(page)["decision"]).history]
    assert kinds == ["verdict", "second"] and world.journal.get(own(page)["decision"]).label == "spam"
    assert "0.0 %" in anna.get("/review/dashboard").text
    world.journal.close()


def test_a_late_second_look_does_not_replace_the_first_answer(tmp_path):
    world = World(tmp_path, second_looks=1.0)
    world.put(decided("only one"))
    anna, bert = client(world, "anna"), client(world, "bert")
    anna.post("/review/answer", data={**own(anna.get("/review")), "label": "spam"})
    late = own(bert.get("/review"))
    world.journal.release(late["decision"], actor="bert", lease=late["lease"])
    assert "nothing was saved" in said(bert.post("/review/answer", data={**late, "label": "fake"}))
    assert world.journal.get(late["decision"]).label == "spam"
    world.journal.close()


def test_a_seed_is_shown_first_then_added_and_undone(world, anna):
    world.fill()
    page = anna.get("/review")
    confirm = anna.get("/review/seed", params=own(page))
    assert "Waiting listings that this seed would find: 4" in confirm.text and "Seed S1" in confirm.text
    assert not world.seeds
    found = anna.post("/review/seed", data={**own(page), "label": "spam", "seed_id": "N1", "answer": "1"})
    assert said(found).startswith("The text is now seed N1 of bank shop.")
    assert world.seeds["N1"]["metadata"] == {"id": "N1", "label": "spam"}
    assert [one.kind for one in world.journal.get(own(page)["decision"]).history] == ["seed_added", "verdict"]
    assert "Undone: answer spam" in said(anna.post("/review/undo"))
    world.refusing = "the bank is busy"
    assert "the bank is busy" in said(anna.post("/review/undo")) and world.seeds
    world.refusing = None
    assert "Undone: seed N1 added to shop" in said(anna.post("/review/undo")) and not world.seeds


def test_a_seed_that_the_bank_refuses_is_not_noted(world, anna):
    world.fill()
    page = anna.get("/review")
    world.refusing = "the id is taken"
    found = anna.post("/review/seed", data={**own(page), "label": "spam", "seed_id": "N1", "answer": "1"})
    assert "the id is taken" in said(found) and world.journal.get(own(page)["decision"]).history == []
    found = anna.post("/review/seed", data={**own(page), "label": "no such", "seed_id": "N1"})
    assert "does not have this label" in said(found)
    assert anna.get("/review/seed?decision=none").status_code == 404


def test_undo_goes_twenty_back_and_over_a_restart(world):
    world.fill(25)
    anna = client(world, "anna")
    for _ in range(22):
        anna.post("/review/answer", data={**own(anna.get("/review")), "label": "spam"})
    for n in range(20):
        if n == 10:
            world.restart()
            anna = client(world, "anna")
        assert "Undone: answer spam" in said(anna.post("/review/undo"))
    assert "nothing left to undo" in said(anna.post("/review/undo"))
    assert world.journal.counts().waiting == 23


def test_undo_opens_the_item_again(world, anna):
    world.fill()
    page = anna.get("/review")
    anna.post("/review/answer", data={**own(page), "label": "spam"})
    found = anna.post("/review/undo")
    assert own(found)["decision"] == own(page)["decision"] and len(world.journal.held("anna")) == 1


def test_history_lists_what_was_done(world, anna):
    world.fill(60)
    for _ in range(52):
        anna.post("/review/answer", data={**own(anna.get("/review")), "label": "spam"})
    anna.post("/review/undo")
    page = anna.get("/review/history")
    assert page.text.count("<tr") == 51 and page.text.count('class="gone"') == 1 and "before=" in page.text
    before = re.search(r"before=(\d+)", page.text)[1]
    assert anna.get(f"/review/history?before={before}").text.count("<tr") == 3
    assert "Nothing was done yet" in client(world, "bert").get("/review/history?mine=1").text
    assert "Undone" in anna.post("/review/undo", data={"back": "history"}).text
    assert anna.get("/review/history?before=99999999999999999999999").status_code == 200


def test_exports_are_json_lines(world, anna):
    world.fill()
    for _ in range(3):
        anna.post("/review/answer", data={**own(anna.get("/review")), "label": "spam"})
    for kind in ("verdicts", "training", "decided"):
        found = anna.get("/review/export", params={"kind": kind, "bank": "shop"})
        rows = [json.loads(line) for line in found.text.splitlines()]
        assert len(rows) == 3 and all(row["metadata"]["label"] == "spam" for row in rows)
        assert found.headers["content-disposition"] == f'attachment; filename="{kind}.jsonl"'
    assert anna.get("/review/export?kind=other").status_code == 422
    assert "export?kind=training" in unescape(anna.get("/review/export").text)


def test_the_dashboard_raises_the_alarm(world, anna):
    assert "No automatic decision" in anna.get("/review/dashboard").text
    ids = world.put(*[decided(f"t{n}", reason=None, probability=0.95, campaign=f"A{n}") for n in range(30)])
    for one in ids:
        world.journal.verdict(one, actor="anna", label="spam")
    page = anna.get("/review/dashboard").text
    assert "Alarm: people found more errors than the policy promises for fraud" in page and "<polyline" in page
    assert "100.0 %" in page
    assert overview.per_day(world.journal)[0][1:] == ("anna", 30)
    assert overview.differing(world.journal) == [("automatic", "fraud", 30, 30)]


def test_both_languages_show_every_page(world):
    world.fill()
    for language in TABLES:
        person = client(world, f"person {language}", language)
        for path in ("", "/login", "/dashboard", "/history", "/export"):
            page = person.get(f"/review{path}").text
            assert f'<html lang="{"zh-CN" if language == "zh" else "en"}"' in page
            assert TABLES[language]["title"] in page


def test_switches_are_remembered(world, anna):
    world.fill()
    assert 'data-keys="on"' in anna.get("/review").text
    page = anna.post("/review/settings", data={"keys": "off", "back": "/review"}).text
    assert 'data-keys="off"' in page and 'data-keys="off"' in anna.get("/review/dashboard").text
    assert '<body hx-boost="true" class="dim"' in anna.post("/review/settings", data={"dim": "on"}).text
    page = anna.post("/review/settings", data={"language": "zh", "back": "/review/history"})
    assert page.url.path == "/review/history" and "历史" in page.text
    assert "历史" in anna.post("/review/settings", data={"language": "xx", "back": "/review/history"}).text


@pytest.mark.parametrize(
    "back", ["https://evil", "//evil", "/review//evil", "/reviewer", "/review/\\evil", "/review\n", ""]
)
def test_a_form_never_leads_to_another_host(anna, back):
    found = anna.post("/review/settings", data={"dim": "on", "back": back}, follow_redirects=False)
    assert found.headers["location"] == "/review"


def test_unknown_and_missing_things_are_a_page(anna):
    for response in (
        anna.get("/review/seed?decision=none"),
        anna.post("/review/open", data={"decision": EVIL}),
        anna.post("/review/answer", data={"decision": "none", "lease": "x", "label": "y"}),
    ):
        assert "<html" in response.text and "<script>window" not in response.text and "Traceback" not in response.text
