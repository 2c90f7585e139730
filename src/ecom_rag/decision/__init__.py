"""Decisions that can be defended: a label, innocent, or a person must look, with an error rate that is promised.

In: results of multi-route recall, and labelled ones to calibrate on. Out: a policy, and results with a ``decision``.
The unit of every promise is the campaign, a group of near-duplicate texts, not the row.
"""
