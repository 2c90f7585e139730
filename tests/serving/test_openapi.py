"""The API as /openapi.json describes it: requests made up by schemathesis, and whether each field is explained."""

import subprocess
import sys

import pytest

from ecom_rag.serving import keys as own_keys
from helpers import small_service

CONFIG = """
[checks]
# Filters, empty texts and verdicts have rules that no schema says, so valid data may be refused with 422.
positive_data_acceptance.enabled = false
# A deadline of 1 ms is valid, and passes.
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]
[phases.fuzzing]
generation.max-examples = 4
[phases.stateful]
generation.max-examples = 3
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("openapi")
    own = files.copied(folder)
    token = own_keys.add(folder / "keys.json", "all", ["admin"])
    with small_service.running(own.settings(folder, keys=str(folder / "keys.json"))) as running:
        yield running, {"Authorization": f"Bearer {token}"}


def nodes(value):
    """All dicts of a description."""
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(one)


def test_every_field_is_explained_and_every_answer_has_a_schema(service):
    running, headers = service
    described = running("GET", "/openapi.json", headers=headers).json()
    missing = [
        f"{name}.{field}"
        for name, schema in described["components"]["schemas"].items()
        if name not in ("HTTPValidationError", "ValidationError")
        for field, own in schema.get("properties", {}).items()
        if "$ref" not in own and not own.get("description", "").endswith(".")
    ]
    assert not missing
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"] and operation["description"].endswith("."), (method, path)
            for parameter in operation.get("parameters", ()):
                assert parameter["description"].endswith("."), (method, path, parameter["name"])
            for status, answer in operation["responses"].items():
                [content] = answer["content"].values()
                assert path == "/metrics" or "$ref" in content["schema"], (method, path, status)
    assert "HTTPValidationError" not in str(described["paths"])


@pytest.mark.slow
def test_schemathesis_finds_nothing(service, tmp_path):
    running, headers = service
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    location = f"{running.url}/openapi.json"
    asked = ["run", location, "--seed", "1", "--mode", "all", "--no-color", "--max-failures", "20"]
    options = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    command = [sys.executable, "-m", "schemathesis.cli", *asked, *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2000:]
