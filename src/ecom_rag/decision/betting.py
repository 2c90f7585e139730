"""An alarm that may be looked at after every decision: bets against "the error rate is at most this".

In: errors and right decisions of one class, in the order in which they were audited. Out: the wealth of somebody who
starts with 1 and bets on each next decision that the rate is higher. Nobody grows rich where it is not: whenever one
looks, and however often, wealth reaches 1/alpha with a probability of at most alpha (Ville's inequality).

::

    wealth after t = mean of four accounts, 1/6, 1/6, 1/6 and 1/2
    an account     = product of (1 + bet * (error - limit)), with bet = (rate - limit) / (limit * (1 - limit)),
                     which is rate / limit for an error and (1 - rate) / (1 - limit) for a right decision

The rates of three accounts are fixed: 1.5, 2 and 3 times the limit. The fourth estimates the rate from the last 200
decisions, and bets nothing while the estimate is not above the limit, so that a long good past costs nothing when the
errors begin. Every bet is made before its decision is seen.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import number

TIMES = (1.5, 2.0, 3.0)  # the limit: rates that the fixed bets stand for
_WINDOW = 200  # decisions that the estimate looks back on
_PRIOR = 50  # decisions at the limit that it begins with


def log_wealth(errors: Sequence[bool] | NDArray[np.bool_], limit: float) -> NDArray[np.float64]:
    """The logarithm of the wealth after each decision.

    A test supermartingale where the error rate, given all earlier decisions, is at most the limit, and a martingale at
    the limit itself (Waudby-Smith and Ramdas, arXiv:2010.09686: diversified Kelly bets and a plug-in bet; Podkopaev
    and Ramdas, arXiv:2110.06177, for deployed models).

    Args:
        errors: ``(n,)``, whether each decision was wrong, in the order of the audit.
        limit: The highest error rate that is promised, above 0 and below 1.

    Returns:
        ``(n,)``; above 0 speaks for a higher error rate.

    Raises:
        UsageError: The limit is out of range.
    """
    limit = number(limit, "limit", low=math.ulp(0.0), high=math.nextafter(1, 0), expected="a number above 0, below 1")
    wrong = np.asarray(errors, bool)
    fixed = [min(times * limit, (1 + limit) / 2) for times in TIMES]
    accounts = [np.cumsum(_log_growth(wrong, np.full(len(wrong), rate), limit)) for rate in fixed]
    accounts.append(np.cumsum(_log_growth(wrong, np.maximum(_estimates(wrong, limit), limit), limit)))
    shares = np.log([0.5 / len(TIMES)] * len(TIMES) + [0.5])
    return np.asarray(np.logaddexp.reduce(np.stack(accounts) + shares[:, None], axis=0))


def alarm_after(wealth: NDArray[np.float64], alpha: float) -> int | None:
    """After how many decisions the wealth first reaches 1/alpha; ``None`` where it does not.

    Args:
        wealth: ``(n,)`` of ``log_wealth``.
        alpha: The probability of a false alarm, above 0 and below 1.
    """
    reached = np.flatnonzero(wealth >= -math.log(alpha))
    return int(reached[0]) + 1 if len(reached) else None


def _log_growth(wrong: NDArray[np.bool_], rates: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """The logarithm of each decision's factor, for bets that stand for these rates."""
    return np.where(wrong, np.log(rates / limit), np.log((1 - rates) / (1 - limit)))


def _estimates(wrong: NDArray[np.bool_], limit: float) -> NDArray[np.float64]:
    """The error rate as it is estimated before each decision is seen."""
    seen = np.arange(len(wrong))
    first = np.maximum(seen - _WINDOW, 0)
    sums = np.concatenate([[0.0], np.cumsum(wrong)])
    return np.asarray((sums[seen] - sums[first] + _PRIOR * limit) / (seen - first + _PRIOR))
