"""The review page in a real browser against a real server: keys, buttons, hostile texts, people side by side."""

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.responses import Response

from ecom_rag.serving import keys
from ecom_rag.serving.http.body import Body
from ecom_rag.serving.http.errors import Answers
from ecom_rag.serving.http.guard import Guard
from ecom_rag.serving.http.sessions import Sessions
from ecom_rag.serving.review import PUBLIC, router
from ecom_rag.serving.settings import Limits
from helpers.reviewing import LABELS, MANY, World, decided, served

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} does not exist; install chromium"),
]


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Host:
    """A server whose journal a test can replace."""

    def __init__(self, folder):
        self.folder, self.number, self.world, self.refusing = folder, 0, None, False

    async def __call__(self, scope, receive, send):
        app = self.app
        if self.refusing and scope.get("method") == "POST":  # as the service answers a form without a session
            app = Response('{"error": {}}', 401, media_type="application/json")
        await app(scope, receive, send)

    def new(self, **options):
        if self.world:
            self.world.journal.close()
        self.number += 1
        folder = self.folder / str(self.number)
        folder.mkdir()
        self.world = World(folder, **options)
        self.again()
        return self.world

    def again(self):
        self.app = self.world.app


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    found = Host(tmp_path_factory.mktemp("review"))
    found.new()
    with served(found) as address:
        found.address = address
        yield found
    found.world.journal.close()


class Person:
    """A browser of somebody who is logged in, and all that it asks for."""

    def __init__(self, chromium, host, name, **options):
        self.context = chromium.new_context(
            **{"locale": "en-US", "viewport": {"width": 1280, "height": 800}, **options}
        )
        self.context.set_default_timeout(30_000)  # a loaded machine reads its tables slowly
        self.context.add_cookies([{"name": "who", "value": name, "url": host.address}])
        self.page = self.context.new_page()
        self.asked, self.errors, self.address = [], [], f"{host.address}/review"
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda one: self.errors.append(one.text) if one.type == "error" else None)
        self.open()

    def open(self, path=""):
        self.page.goto(self.address + path)

    @property
    def decision(self):
        return self.page.locator("#answer [name=decision]").get_attribute("value")

    def press(self, key):
        """Press a key that leads to another item or page, and wait for it."""
        self.page.evaluate("document.querySelector('main').dataset.old = '1'")
        self.page.keyboard.press(key)
        self.page.locator("main:not([data-old])").wait_for()
        self.until("!document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')")

    def until(self, expression):
        """Wait for an expression; `wait_for_function` needs the `eval` that the page forbids."""
        for _ in range(1000):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(25)
        raise AssertionError(f"never: {expression}")

    def notice(self):
        return self.page.locator(".notice").inner_text()


@pytest.fixture
def person(chromium, host):
    opened = []

    def make(name="anna", **options):
        opened.append(Person(chromium, host, name, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.context.close()


def test_every_key_does_what_the_list_says(host, person):
    world = host.new()
    world.fill(12)
    anna = person()
    said = []
    for key in "1230":
        anna.press(key)
        said.append(anna.notice().split(".")[0])
    assert said == ["Saved: fraud", "Saved: spam", "Saved: fake", "Saved: innocent"]
    anna.press("s")
    assert "Skipped" in anna.notice()
    anna.press("e")
    assert "Escalated" in anna.notice()
    anna.press("u")
    assert "Undone: escalate" in anna.notice()
    anna.page.keyboard.press("Escape")
    for key, number in (("j", 0), ("j", 1), ("k", 0)):
        anna.page.keyboard.press(key)
        focused = anna.page.evaluate("[...document.querySelectorAll('.seed')].indexOf(document.activeElement)")
        assert focused == number
    anna.page.keyboard.press("?")
    assert anna.page.locator(".sheet").is_visible()
    anna.page.keyboard.press("?")
    assert not anna.page.locator(".sheet").is_visible()
    anna.page.keyboard.press("/")
    assert anna.page.evaluate("document.activeElement.id") == "filter"
    anna.page.keyboard.press("Escape")
    anna.page.locator(".text").click()
    anna.page.keyboard.press("Enter")
    assert anna.page.evaluate("document.activeElement.id") == "note"
    before = anna.decision
    anna.page.keyboard.type("1 0 s e u b")
    anna.press("Enter")
    assert "note is saved" in anna.notice() and anna.decision == before
    assert [one.body for one in world.journal.get(before).history if one.kind == "note"] == [{"note": "1 0 s e u b"}]
    anna.press("b")
    assert "Waiting listings that this seed would find" in anna.page.locator("main").inner_text()
    anna.page.get_by_role("button", name="Add the seed").click()
    anna.page.locator(".notice").wait_for()
    assert "is now seed" in anna.notice() and len(world.seeds) == 1
    assert anna.errors == []


def test_more_labels_than_keys_go_through_a_field(host, person):
    host.new(labels=MANY).fill(4)
    anna = person()
    anna.page.keyboard.press("9")
    anna.page.keyboard.type("spam")
    anna.press("Enter")
    assert "Saved: spam" in anna.notice()


def test_keys_rest_in_fields_with_modifiers_while_composing_and_when_turned_off(host, person):
    world = host.new()
    world.fill(5)
    anna = person()
    head = world.journal.head()
    anna.page.focus("#note")
    for key in ("1", "s", "u", "Control+1", "Alt+1", "Meta+1"):
        anna.page.keyboard.press(key)
    anna.page.keyboard.press("Escape")
    for key in ("Control+1", "Alt+1", "Meta+1", "Shift+S", "x", "5"):
        anna.page.keyboard.press(key)
    anna.page.evaluate(
        """for (const more of [{isComposing: true}, {keyCode: 229}, {repeat: true}])
             document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "1", bubbles: true, ...more}))"""
    )
    anna.page.get_by_role("button", name="Keys: on").click()
    anna.page.get_by_role("button", name="Keys: off").wait_for()
    for key in "1su?/j":
        anna.page.keyboard.press(key)
    anna.open()
    anna.page.keyboard.press("1")
    anna.page.wait_for_timeout(150)
    assert world.journal.head() == head and not anna.page.locator(".sheet").is_visible()


def test_a_key_pressed_twice_answers_one_item(host, person):
    world = host.new()
    world.fill(5)
    anna = person()
    anna.page.evaluate(
        """for (let n = 0; n < 3; n++)
             document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "1", bubbles: true}))"""
    )
    anna.page.locator(".notice").wait_for()
    anna.page.wait_for_timeout(150)
    assert "Saved: fraud" in anna.notice() and world.journal.counts().waiting == 4


def test_hostile_texts_do_nothing_and_nothing_is_asked_of_other_hosts(host, person):
    world = host.new()
    world.fill(5)
    anna = person()
    for _ in range(5):
        text = anna.page.locator(".text").inner_text()
        assert not re.search("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", text)
        anna.press("s")
    for path in ("", "/history", "/dashboard", "/export", "/login"):
        anna.open(path)
        assert anna.page.evaluate("window.hacked") is None
    assert anna.page.context.storage_state()["origins"] == []  # no listing is kept in the browser
    assert all(url.startswith(host.address) or url.startswith("data:") for url in anna.asked) and anna.errors == []


def test_hidden_characters_have_names(host, person):
    host.new().put(decided("a\u202eb\u200bc"))
    anna = person()
    boxes = anna.page.locator(".text .hidden-one")
    assert [boxes.nth(n).get_attribute("title") for n in range(2)] == [
        "U+202E RIGHT-TO-LEFT OVERRIDE",
        "U+200B ZERO WIDTH SPACE",
    ]
    assert anna.page.get_by_role("img", name="hidden character U+202E").first.is_visible()


def test_two_browsers_never_get_the_same_item(host, person):
    world = host.new()
    world.fill(9)
    anna, bert = person("anna"), person("bert")
    seen = [anna.decision, bert.decision]
    for one in (anna, bert, anna, bert, anna, bert):
        one.press("1")
        assert anna.decision != bert.decision
        seen.append(one.decision)
    assert len(set(seen)) == 8


def test_a_lost_item_is_told_and_leaving_gives_it_back(host, person):
    world = host.new()
    world.fill(4)
    anna = person("anna")
    lost = anna.decision
    world.journal.release(lost, actor="anna")
    bert = person("bert")
    assert bert.decision == lost
    anna.press("1")
    assert "nothing was saved" in anna.notice() and world.journal.get(lost).history == []
    assert anna.decision != lost
    bert.page.close()
    for _ in range(400):
        if not world.journal.held("bert"):
            break
        anna.page.wait_for_timeout(50)
    assert world.journal.held("bert") == []
    anna.page.reload()
    assert len(world.journal.held("anna")) == 1


def test_the_time_that_is_left_is_shown_and_its_end_told(host, person):
    host.new(lease_seconds=3.0).fill(3)
    anna = person()
    assert re.fullmatch(r"Yours for 0:0[0-3]", anna.page.locator("#left").inner_text())
    anna.until("document.getElementById('left').textContent.includes('is over')")
    anna.page.wait_for_timeout(100)
    assert anna.page.locator("#soon").inner_text() != ""
    anna.press("1")
    assert "nothing was saved" in anna.notice()


def test_undo_after_undo_after_a_restart(host, person):
    world = host.new()
    world.fill(6)
    anna = person()
    for key in "12s":
        anna.press(key)
    world.restart()
    host.again()
    said = []
    for _ in range(4):
        anna.press("u")
        said.append(anna.notice().split(".")[0])
    assert said[:3] == ["Undone: skip", "Undone: answer spam", "Undone: answer fraud"]
    assert "nothing left" in said[3] and world.journal.counts().waiting == 6


def test_everything_works_without_scripts(host, person):
    world = host.new()
    world.fill(8)
    anna = person(java_script_enabled=False)
    page = anna.page
    page.get_by_role("button", name="spam", exact=False).first.click()
    assert "Saved: spam" in anna.notice()
    for name, told in (
        ("Innocent", "Saved: innocent"),
        ("Skip", "Skipped"),
        ("Escalate", "Escalated"),
        ("Put back", "back in the queue"),
        ("Undo", "Undone: escalate"),
    ):
        page.locator(".answer button:visible", has_text=name).first.click()
        assert told in anna.notice()
    page.fill("#note", "a remark")
    page.press("#note", "Enter")
    assert "note is saved" in anna.notice()
    page.fill("#filter", "shop =")
    page.press("#filter", "Enter")
    assert "cannot be read" in page.locator("#filter-wrong").inner_text()
    page.get_by_role("button", name="Clear the filter").click()
    page.get_by_role("link", name="Add as seed").click()
    page.get_by_role("button", name="Add the seed").click()
    assert "is now seed" in anna.notice()
    page.get_by_role("button", name="中文").click()
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.locator(".list button").last.click()
    page.get_by_role("link", name="历史").click()
    page.get_by_role("button", name="撤销").click()
    assert "已撤销" in anna.notice()


def test_dimmed_text_shows_when_looked_at(host, person):
    host.new().fill(3)
    anna = person()
    anna.page.get_by_role("button", name="Dim text: off").click()
    anna.page.get_by_role("button", name="Dim text: on").wait_for()
    blur = "getComputedStyle(document.querySelector('.text')).filter"
    anna.page.mouse.move(0, 0)
    assert "blur" in anna.page.evaluate(blur)
    anna.page.focus(".text")
    anna.until(f"{blur} === 'none'")


@pytest.mark.parametrize("width", [360, 720, 1440])
def test_nothing_is_wider_than_the_screen(host, person, width):
    host.new(labels=MANY).fill(4)
    anna = person(viewport={"width": width, "height": 740})
    for path in ("", "/dashboard", "/history", "/export", "/login"):
        anna.open(path)
        assert anna.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_axe_finds_nothing(host, person, scheme, language):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    world = host.new(labels=MANY if scheme == "dark" else LABELS, second_looks=0.0)
    world.fill(6)
    world.put(decided("很长的文本，" * 400, probability=0.899, shop="x" * 300))
    for one in world.put(*[decided(f"t{n}", reason=None, probability=0.95, campaign=f"A{n}") for n in range(8)]):
        world.journal.verdict(one, actor="li", label="fraud")
    anna = person(color_scheme=scheme, locale="zh-CN" if language == "zh" else "en-US", bypass_csp=True)
    found = {}
    few, others = ("", "/dashboard"), ("/history", "/export", "/login", "?filter=x+%3D&said=lost", "seed")
    for path in (*few, *(others if (language == "zh") == (scheme == "dark") else ())):
        if path == "seed":
            anna.open()
            anna.press("b")
        else:
            anna.open(path)
        for one in axe.Axe().run(anna.page).response["violations"]:
            found[path, one["id"]] = [node["html"][:120] for node in one["nodes"][:3]]
    assert found == {}


def test_a_session_that_has_ended_leads_to_the_login(host, person):
    host.new().fill(3)
    anna = person()
    host.refusing = True
    try:
        anna.context.clear_cookies()
        anna.page.keyboard.press("1")
        anna.page.locator("#key").wait_for()
    finally:
        host.refusing = False
    assert "error" not in anna.page.locator("body").inner_text()


def test_behind_the_guard_of_the_service(host, chromium, tmp_path):
    world = host.new()
    world.fill(4)
    token = keys.add(tmp_path / "keys.json", "carla", ("review",))
    known = keys.Keys(tmp_path / "keys.json")
    sessions = Sessions(known)
    login = {
        "actor_of": lambda request: request.state.key and request.state.key.name,
        "login": lambda request, key: sessions.log_in(key, secure=False),
    }
    app = FastAPI()
    app.include_router(router(replace(world.review, **login)))
    app.add_middleware(Body, limits=Limits(), forms=("/review/",))
    app.add_middleware(Guard, keys=known, sessions=sessions, public=PUBLIC, login="/review/login")
    app.add_middleware(Answers)
    host.app = app
    context = chromium.new_context(locale="en-US")
    try:
        page = context.new_page()
        page.goto(f"{host.address}/review")
        page.fill("#key", token)
        page.press("#key", "Enter")
        page.locator("#answer").wait_for()
        page.keyboard.press("2")
        page.locator(".notice").wait_for()
        assert "Saved: spam" in page.locator(".notice").inner_text() and world.journal.held("carla")
        page.close()  # the last words of a page pass the guard too
        for _ in range(400):
            if not world.journal.held("carla"):
                break
            time.sleep(0.05)
        assert world.journal.held("carla") == []
    finally:
        context.close()
