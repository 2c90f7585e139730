"""The networks that run: torch modules whose one pass gives all outputs.

What may come in: a described checkpoint and its tensors. What goes out: modules from token ids to tensors, those of
``transformers`` or our own fused layers with their compiled kernels.
"""
