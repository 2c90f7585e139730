"""Where what is derived from checkpoints is kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Converted models, tokenizers, fingerprints, unpacked weights: ``$ECOM_RAG_CACHE`` or ``~/.cache/ecom_rag``."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecom_rag"
    return Path(os.environ.get("ECOM_RAG_CACHE") or default)
