"""The documentation site: the Markdown of this folder, once in English and once in Chinese.

``make docs`` builds both; the language decides which pages belong to a site: ``page.md`` or ``page.zh-CN.md``.
"""

import os
import re

project = "ecom_rag"
author = copyright = "The ecom_rag authors"
language = os.environ.get("DOCS_LANGUAGE", "en")
_CHINESE = language.startswith("zh")

extensions = ["myst_parser"]
root_doc = "index.zh-CN" if _CHINESE else "index"
include_patterns = ["*.zh-CN.md"] if _CHINESE else ["*.md"]
exclude_patterns = [] if _CHINESE else ["*.zh-CN.md"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links to sources outside this folder; a test follows every link

html_theme = "furo"
html_title = "ecom_rag"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


def _link_languages(_app: object, _name: str, source: list[str]) -> None:
    """Let a page's link to its other language lead to the other site."""
    if _CHINESE:
        source[0] = re.sub(r"^\[English\]\((\w+)\.md\)", r"<a href='../en/\1.html'>English</a>", source[0], flags=re.M)
    else:
        source[0] = re.sub(
            r"^\[中文\]\(([\w-]+)\.zh-CN\.md\)", r"<a href='../zh/\1.zh-CN.html'>中文</a>", source[0], flags=re.M
        )


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _link_languages)  # type: ignore[attr-defined]
