"""No library that we use reports its use to anyone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ecom_rag

pytestmark = pytest.mark.slow

SWITCHES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}


def _python(code, home, **variables):
    """Run code as on a fresh account, outside CI (where OpenVINO would report nothing by itself)."""
    off = {"CI", "TF_BUILD", "JENKINS_URL", "HF_HUB_OFFLINE", *SWITCHES}
    kept = {key: value for key, value in os.environ.items() if key not in off}
    paths = {"PYTHONPATH": str(Path(ecom_rag.__file__).parents[1]), "HOME": str(home)}
    run = subprocess.run([sys.executable, "-c", code], env=kept | paths | variables, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("first", ["", "import huggingface_hub, transformers", "import ecom_rag.files.records"])
def test_importing_the_package_switches_reports_off(first, tmp_path):
    code = (
        f"{first}\nimport ecom_rag, os, huggingface_hub.constants\n"
        f"print([os.environ[name] for name in {list(SWITCHES)}], huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    assert _python(code, tmp_path).strip() == f"{list(SWITCHES.values())} True"


@pytest.mark.parametrize("name", SWITCHES)
def test_what_the_user_has_set_stays(name, tmp_path):
    assert _python(f"import ecom_rag, os; print(os.environ[{name!r}])", tmp_path, **{name: "own"}) == "own\n"


@pytest.mark.parametrize("before", ["", "import openvino", "import openvino_telemetry"])
def test_a_conversion_sends_nothing_and_writes_nothing_at_home(before, bge_folder, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    code = f"""
import urllib.request
sent = []
urllib.request.urlopen = lambda *positional, **_: sent.append(positional)
from ecom_rag import Encoder
{"" if before else "assert 'openvino' not in __import__('sys').modules"}
if {before!r}:
    import openvino_telemetry.utils.sender as sender
    sender.TelemetrySender.send = lambda *_, **__: None  # what the user's own import sends is not ours
{before}
model = Encoder.from_pretrained({str(bge_folder)!r}, runtime="openvino")
from openvino_telemetry.main import Telemetry
from openvino_telemetry.utils.sender import TelemetrySender
model.encode(["tea"])
found = Telemetry()
assert found.consent is False
TelemetrySender.send(found.sender, found.backend, None)
found.send_event("a", "b", "c", force_send=True)
found.sender.executor.shutdown(wait=True)
assert sent == []
"""
    _python(code, home, ECOM_RAG_CACHE=str(tmp_path / "cache"))
    if before != "import openvino":
        assert list(home.rglob("*")) == []
