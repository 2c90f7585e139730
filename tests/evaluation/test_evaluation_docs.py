"""What docs/evaluation shows works: its options exist, and its last Python block runs."""

import re
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["evaluation.md", "evaluation.zh-CN.md"])
def test_documented(name, capsys):
    from ecom_rag.cli import app

    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    command = typer.main.get_command(app).commands["evaluate"]
    known = {option for parameter in command.params for option in parameter.opts}
    lines = re.findall(r"^ecom-rag evaluate (.*)$", text, re.MULTILINE)
    assert lines and {word for line in lines for word in line.split() if word.startswith("--")} <= known
    documented = set(re.findall(r"--[a-z-]+", text))
    assert {option for option in known if option.startswith("--")} - documented == {"--verbose", "--quiet"}
    block = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[-1]
    exec(compile(block, name, "exec"), {})
    assert "RR@10" in capsys.readouterr().out
