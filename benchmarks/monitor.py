"""The alarm of ``ecom-rag monitor``: how soon it comes, how often for nothing, and what repeated tests would do."""

import math

import numpy as np
from scipy.stats import binom

from common import arguments, heading

ALPHA = 0.05


def main() -> None:
    options = arguments(__doc__, runs={"type": int, "default": 4000}, seed={"type": int, "default": 0})
    heading("Monitor")
    random = np.random.default_rng(options.seed)
    print(f"{options.runs:,} simulated runs per line, alpha {ALPHA}, one class.\n")
    how_soon(random, options.runs)
    for_nothing(random, options.runs)
    after_a_good_past(random, options.runs)


def how_soon(random: np.random.Generator, runs: int) -> None:
    """Runs of 2,000 decisions with more errors than promised."""
    print("| promised | true | alarm after, median | 90 % of runs | within 450 |\n|---|---|---|---|---|")
    for limit, rate in ((0.05, 0.10), (0.05, 0.075), (0.05, 0.15), (0.05, 0.25), (0.10, 0.20), (0.02, 0.04)):
        after = alarms(random.random((runs, 2000)) < rate, limit)
        row(f"{100 * limit:g} % | {100 * rate:g} %", after)
    print()


def row(name: str, after: np.ndarray) -> None:
    half, most = np.quantile(after, [0.5, 0.9], method="inverted_cdf")
    told = (f"{value:.0f}" if math.isfinite(value) else "none in 2,000" for value in (half, most))
    print(f"| {name} | {' | '.join(told)} | {100 * np.mean(after <= 450):.1f} % |", flush=True)


def for_nothing(random: np.random.Generator, runs: int) -> None:
    """Runs at exactly the limit; beside an exact binomial test at the same alpha after every decision."""
    print("| promised = true | decisions | false alarms | binomial test after each decision |\n|---|---|---|---|")
    for limit in (0.02, 0.05, 0.10):
        wrong = random.random((runs, 5000)) < limit
        after = alarms(wrong, limit)
        tested = first(binom.sf(np.cumsum(wrong, axis=1) - 1, np.arange(1, 5001), limit) <= ALPHA)
        for count in (450, 5000):
            shares = (100 * np.mean(found <= count) for found in (after, tested))
            print(f"| {100 * limit:g} % | {count:,} | {' | '.join(f'{share:.1f} %' for share in shares)} |", flush=True)
    print()


def after_a_good_past(random: np.random.Generator, runs: int) -> None:
    """Errors that begin late: 10 % against 5 % after decisions at 2 %; counted from where they begin."""
    print("| decisions before, at 2 % | alarm after, median | 90 % of runs | within 450 |\n|---|---|---|---|")
    for before in (0, 300, 1000, 3000):
        wrong = np.concatenate([random.random((runs, before)) < 0.02, random.random((runs, 2000)) < 0.10], axis=1)
        after = alarms(wrong, 0.05) - before
        row(f"{before:,}", after)


def alarms(wrong: np.ndarray, limit: float) -> np.ndarray:
    """After how many decisions each run's alarm comes, infinity for never."""
    from ecom_rag.decision.betting import alarm_after, log_wealth

    found = (alarm_after(log_wealth(run, limit), ALPHA) for run in wrong)
    return np.array([math.inf if one is None else float(one) for one in found])


def first(reached: np.ndarray) -> np.ndarray:
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, math.inf)


if __name__ == "__main__":
    main()
