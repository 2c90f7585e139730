"""What is relevant, how good rankings are, and how sure that is: arrays in, figures out.

Used by what fits weights (``fit_fusion``, training, merging) and by ``evaluation``, which knows files and measures by
name.
"""
