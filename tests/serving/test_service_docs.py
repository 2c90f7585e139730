"""What docs/service.md says of settings, limits, endpoints, errors and metrics is what there is."""

import asyncio
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from ecom_rag.serving.http.app import create_app
from ecom_rag.serving.metrics import Metrics
from ecom_rag.serving.settings import Limits, Serve, read_serve

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src" / "ecom_rag" / "serving"
PAGES = ["docs/service.md", "docs/service.zh-CN.md"]


@pytest.fixture(params=PAGES)
def page(request):
    return (ROOT / request.param).read_text(encoding="utf-8")


def test_the_settings_file_is_read_and_holds_every_key(page, tmp_path):
    [block] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "serve.toml").write_text(block, encoding="utf-8")
    settings, said = read_serve(tmp_path / "serve.toml", {}), tomllib.loads(block)
    assert set(said) == {one.name for one in fields(Serve)}
    assert set(said["limits"]) == {one.name for one in fields(Limits)}
    defaults = {one.name: one.default for one in fields(Limits)} | {"requests_per_second": 50.0}
    assert said["limits"] == defaults and settings.limits == Limits(**defaults)


def test_the_settings_of_deploy_are_read():
    assert read_serve(ROOT / "deploy" / "serve.toml", {}).drain_delay == 10


def test_the_table_of_limits_names_all_of_them(page):
    assert not [one.name for one in fields(Limits) if f"`{one.name}`" not in page]


def test_every_endpoint_is_named(page):
    app = create_app(Serve(model="starter"))
    paths = app.openapi()["paths"]
    asyncio.run(app.state.service.engine.close())  # its threads run from the start
    said = re.sub(r"…", "/v1/banks/{bank}", page)
    short = {path: re.sub(r"\{(decision|seed)\}", "{id}", path) for path in paths}
    assert not [path for path, name in short.items() if name not in said]


def test_every_code_is_named(page):
    sources = [path for path in SOURCE.rglob("*.py") if "review" not in path.name]
    codes = {code for path in sources for code in re.findall(r'code="([a-z_]+)"', path.read_text(encoding="utf-8"))}
    assert len(codes) > 30
    assert not [code for code in codes if f"`{code}`" not in page]


def test_every_metric_is_named(page):
    found = set(re.findall(r"^# TYPE (ecom_rag_\w+)", Metrics().text().decode(), re.MULTILINE))
    found = {name for name in found if not name.endswith("_created")}
    gauges = set(re.findall(r'"(ecom_rag_\w+)"', (SOURCE / "http" / "app.py").read_text(encoding="utf-8")))
    assert len(found | gauges) > 8
    assert not [name for name in found | gauges if f"`{name}`" not in page]
