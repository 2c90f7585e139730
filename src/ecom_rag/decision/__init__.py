"""Decisions that can be defended: a label, innocent, or a person must look, with an error rate that is promised.

In: results of multi-route recall, and labelled ones to calibrate on. Out: a policy, and results with a ``decision``.
The unit of every promise is the campaign, a group of near-duplicate texts, not the row.
"""

from ecom_rag.decision.calibration import Calibration, calibrate
from ecom_rag.decision.decide import Decider
from ecom_rag.decision.deciding import Deciding
from ecom_rag.decision.files import calibrate_file, decide_file
from ecom_rag.decision.policy import Policy, load_policy
from ecom_rag.decision.settings import Calibrate

__all__ = [
    "Calibrate",
    "Calibration",
    "Decider",
    "Deciding",
    "Policy",
    "calibrate",
    "calibrate_file",
    "decide_file",
    "load_policy",
]
