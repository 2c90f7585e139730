"""Merging: several checkpoints of one network become one, by weights given, computed or found on validation sets.

``methods`` are pure functions over tensors; ``files`` reads and writes tensors one at a time; ``compatible`` refuses
models that are not the same network; ``models`` puts them together; ``cocktail`` and ``search`` find weights;
``adapter`` folds an adapter into its base.
"""

from ecom_rag.merging.adapter import merge_adapter
from ecom_rag.merging.methods import METHODS, Mix
from ecom_rag.merging.models import Models, merge

__all__ = ["METHODS", "Mix", "Models", "merge", "merge_adapter"]
