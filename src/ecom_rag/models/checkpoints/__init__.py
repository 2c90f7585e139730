"""Checkpoints on disk: found, checked, described and read.

What may come in: a model's name or a folder. What goes out: its description, its fingerprint, its tokenizer and its
tensors by name, or one line that says what in the folder is not supported. Code in a folder is never run.
"""
