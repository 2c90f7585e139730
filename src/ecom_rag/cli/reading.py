"""How the texts of a file or a new bank are read: the option, and what it makes of an analyzer."""

from typing import Annotated, Any

import typer

Deobfuscate = Annotated[
    bool | None,
    typer.Option(
        "--deobfuscate",
        help="Have encoder and bm25 read disguised letters (c@s1no, b.u.l.l.e.t.s) as what they stand for.",
        show_default=False,
    ),
]


def analysis(deobfuscate: bool | None, **options: Any) -> Any:
    """How the texts of ``--seeds`` become terms.

    Args:
        deobfuscate: Of the option.
        options: As of ``Analyzer``.
    """
    from ecom_rag.text.analysis import Analyzer

    if not deobfuscate:
        return Analyzer(**options)
    from ecom_rag.models.deobfuscation import Deobfuscator

    return Analyzer(**options, reader=Deobfuscator())


def encoder_options(place: dict[str, Any], deobfuscate: bool | None) -> dict[str, Any]:
    """The options of an encoder that searches seeds; a bank's own says how it reads.

    Args:
        place: Where and how it runs.
        deobfuscate: Of the option.
    """
    return {**place, "deobfuscate": True} if deobfuscate else place
