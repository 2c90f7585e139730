"""``python -m ecom_rag`` is ``ecom-rag``."""

from ecom_rag.cli import main

main()
