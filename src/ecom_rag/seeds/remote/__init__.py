"""A bank in a server of any kind: what it is asked and answers, over an ``Engine`` that brings candidates and records.

``engine`` says what a kind of server must be able to do, ``state`` where a bank stands, ``bounds`` how far the scores
of a server may be from ours, ``terms`` what texts are made of. Our own indexes decide among the candidates (``vectors``
and ``postings``). ``bank`` is an open bank, ``view`` one state of it.
"""
