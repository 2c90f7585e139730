"""Training: what sentence-transformers' trainers lack, as plain functions and samplers, and the recipes that use both.

``losses`` are pure functions over score matrices; ``sampling`` draws balanced batches of row numbers. In: labelled
records, or queries with positives and negatives. Out: a checkpoint folder that ecom_rag, sentence-transformers and
FlagEmbedding load.
"""
