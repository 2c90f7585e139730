"""What ``ecom-rag demo`` runs: sample listings are decided, with a promise, and the evidence is shown.

In: the texts of ``sample_data``, all written for this project, and the packaged starter models. Out: lines on the
terminal, and a folder with the samples, the results, the policy and a page to open.
"""

from ecom_rag.demo.run import run

__all__ = ["run"]
