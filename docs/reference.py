"""Write what the documentation takes from the program; a test holds the pages to it.

That is ``commands.md``, from the commands' own ``--help``, and the tables of ``models.md`` in both languages, from the
table of families.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

TARGET = Path(__file__).parent / "commands.md"
MODELS = tuple(Path(__file__).parent / name for name in ("models.md", "models.zh-CN.md"))
_WIDTH = 100
_START, _END = "<!-- written by docs/reference.py from src/ecom_rag/models/families.py -->", "<!-- end -->"
_TITLES = {
    "models": "Model",
    "architecture": "Architecture",
    "pooling": "Pooling",
    "query_instruction": "Around queries",
    "passage_instruction": "Before seeds",
    "outputs": "Outputs",
    "head": "Head",
    "instruction": "Instruction",
    "max_length": "Tokens",
    "licence": "Licence",
    "verified": "Numbers equal",
    "task": "Task",
    "description": "Description",
}
_CHINESE = {
    "Model": "模型",
    "Architecture": "架构",
    "Pooling": "池化",
    "Around queries": "查询前后",
    "Before seeds": "种子前缀",
    "Outputs": "输出",
    "Head": "输出头",
    "Instruction": "指令",
    "Tokens": "词元",
    "Licence": "许可",
    "Numbers equal": "数值等同于",
    "Task": "任务",
    "Description": "描述",
    "one logit": "单 logit",
    "logit of Yes": "Yes 的 logit",
    "logit of yes minus that of no": "yes 的 logit 减去 no 的 logit",
    "linear, by layer": "线性头，按层",
    "parts of FlagEmbedding 1.4.2": "FlagEmbedding 1.4.2 的组成部分",
    "the formula of the model card": "模型卡中的公式",
}
_HEAD = """# Commands

Every command, as `--help` prints it. This page is written by `python docs/reference.py`; change the help texts in
`src/ecom_rag/cli/` instead.
"""


def reference() -> str:
    """The page: a heading and the help of each command, groups before their commands."""
    from ecom_rag.cli import app

    parts = [_HEAD]
    for words, command in _walk("ecom-rag", typer.main.get_command(app)):
        level = "##" if words.count(" ") < 2 else "###"
        context = command.make_context(words, [], resilient_parsing=True, terminal_width=_WIDTH)
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"{level} {words}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _walk(words: str, command: Any) -> list[tuple[str, Any]]:
    below = sorted(getattr(command, "commands", {}).items())
    return [(words, command), *(found for name, own in below for found in _walk(f"{words} {name}", own))]


def models_page(page: Path) -> str:
    """A page of models with its tables made anew, between the two comments that mark them."""
    from ecom_rag.models import listing
    from ecom_rag.models.instructions import TASKS

    words = _CHINESE if page.name.endswith(".zh-CN.md") else {}
    tasks: list[listing.Row] = [{"task": f"`{name}`", "description": text} for name, text in TASKS.items()]
    tables = [_table(rows, words) for rows in (listing.encoders(), listing.rerankers(), tasks)]
    before, _, rest = page.read_text(encoding="utf-8").partition(_START)
    return before + _START + "\n\n" + "\n\n".join(tables) + "\n\n" + _END + rest.partition(_END)[2]


def _table(rows: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> str:
    kept = [name for name in rows[0] if any(row[name] != "" for row in rows)]
    lines = [[_TITLES[name] for name in kept], ["---"] * len(kept)]
    for row in rows:
        code = (name for name in kept if name.endswith("instruction") and row[name])
        shown = {name: f"{value:,}" if isinstance(value, int) else value for name, value in row.items()}
        shown |= {name: "`" + row[name].replace("\n", "\\n") + "`" for name in code}
        lines.append([shown[name] for name in kept])
    return "\n".join("| " + " | ".join(words.get(cell, cell) for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    for page in MODELS:
        page.write_text(models_page(page), encoding="utf-8")
