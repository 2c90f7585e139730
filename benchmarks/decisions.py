"""Decisions on labelled sets: what the combiner adds to the vote, and whether promises hold when campaigns are redrawn.

The bank is 70 % of train drawn by campaign, the other 30 % calibrates, dev tests. ``--draws`` repeats that. A promise is
tested on resamples: as many campaigns as the calibration has are drawn with replacement from all that are not in the bank
(calibration and dev); a policy is certified on them, and its precision is that over all of these campaigns.
"""

import numpy as np

from common import arguments, heading

ROUTES = ("bm25", "dense", "variant")
SETS = {"fbs_sms_zh": (), "chinese_harm": ("不违规",)}
TOP_K = 10
EVASIVE = ("homophone", "lookalike", "split", "pinyin")


class Remembered:
    """An encoder that encodes each text of a set once, for all draws."""

    def __init__(self, encoder, texts) -> None:
        self._encoder, self._rows = encoder, {text: row for row, text in enumerate(texts)}
        self._found = {side: encoder.encode(texts, side=side) for side in ("query", "passage")}
        self.fingerprint, self.settings = encoder.fingerprint, encoder.settings

    def check_outputs(self, outputs) -> None:
        """See ``Encoder``."""
        self._encoder.check_outputs(outputs)

    def encode(self, texts, *, side="passage", outputs=("dense",), progress=None):
        """See ``Encoder``."""
        if not all(text in self._rows for text in texts):
            return self._encoder.encode(texts, side=side, outputs=outputs)
        return self._found[side].take(np.array([self._rows[text] for text in texts], np.int64))


def heldout(items, campaigns, draw):
    """Rows of the bank and of the calibration: 70 and 30 % of the campaigns."""
    names = np.random.default_rng(draw).permutation(np.unique(campaigns))
    bank = np.isin(campaigns, names[: int(0.7 * len(names))])
    return np.flatnonzero(bank), np.flatnonzero(~bank)


def prepared(items, test, encoder, draw, asked, leave_out=()):
    """What the bank teaches, and the calibration and test listings as judged; seeds of some labels may be left out."""
    from ecom_rag.decision.judged import judge
    from ecom_rag.decision.learned import learn
    from ecom_rag.pipeline import Pipeline, Recall, Seeds
    from ecom_rag.text.near_duplicates import near_duplicates

    campaigns = near_duplicates([item["text"] for item in items])
    bank, rest = heldout(items, campaigns, draw)
    kept = [items[row] for row in bank if items[row]["metadata"]["label"] not in leave_out]
    seeds = Seeds(kept, routes=ROUTES, encoder=encoder)
    pipeline = Pipeline(seeds, Recall(routes=ROUTES, top_k=TOP_K))
    learned = learn(pipeline, asked)
    results = [pipeline.recall([items[row] for row in rest]), pipeline.recall(test)]
    labels = [[one["metadata"]["label"] for one in part] for part in results]
    calibration, fresh = (judge(*part, learned, asked.similarity) for part in zip(results, labels, strict=True))
    return learned, calibration, fresh, results[1], pipeline


def against_the_vote(learned, test, every) -> None:
    """Macro-F1 of the combiner beside the vote of the same seeds, on all test texts and on those without relatives."""
    from ecom_rag.decision.combiner import verdicts
    from ecom_rag.decision.evidence import neighbours_of_results, seed_labels
    from ecom_rag.evaluation.labels import Votes, compare_macro_f1, macro_f1, vote

    number = {label: place for place, label in enumerate(learned.seeds.labels)}
    for name, results in (("all", every), ("without relatives", test.results)):
        truth = [one["metadata"]["label"] for one in results]
        cast = vote(truth, [[one["label"] for one in result["topk_metadata"]] for result in results])
        found = verdicts(
            learned.combiner,
            neighbours_of_results(results, seed_labels(results, "label", TOP_K), number, ROUTES, TOP_K),
        )
        place = {label: index for index, label in enumerate(cast.classes)}
        own = np.array([place.get(label, -1) for label in learned.seeds.labels] + [-1])
        combined = Votes(cast.classes, cast.truth, own[found.first], cast.shares)
        gain = compare_macro_f1(cast, combined, resamples=2000)
        print(
            f"  {name:18} {len(truth):5} texts  vote {macro_f1(cast):.4f}  combiner {macro_f1(combined):.4f}"
            f"  {gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
            f"  ECE {ece(found.highest, combined.correct):.4f}, of the vote {ece(cast.shares.max(axis=1), cast.correct):.4f}"
        )


def ece(probabilities, correct, bins=15) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017)."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    parts = [place == one for one in range(bins)]
    return sum(abs(probabilities[one].mean() - correct[one].mean()) * one.mean() for one in parts if one.any())


def taken(units, rows):
    from ecom_rag.decision.rules import Units

    return Units(*(getattr(units, name)[rows] for name in Units.__slots__))


class Population:
    """All listings that are not in the bank, by campaign."""

    def __init__(self, parts, innocent, similarity) -> None:
        from ecom_rag.decision.rules import Units
        from ecom_rag.text.near_duplicates import near_duplicates

        columns = [(one.truth, one.verdicts.first, one.verdicts.highest, one.verdicts.flags(innocent)) for one in parts]
        self.rows = Units(*map(np.concatenate, zip(*columns, strict=True)))
        campaigns = near_duplicates([one["text"] for part in parts for one in part.results], similarity=similarity)
        order = np.random.default_rng(0).permutation(len(campaigns))
        _, first, sizes = np.unique(campaigns[order], return_index=True, return_counts=True)
        self.chosen = order[first]  # any one text of each campaign
        self.units = taken(self.rows, self.chosen)
        ranked = np.argsort(campaigns, kind="stable")
        self.members = np.split(ranked, np.cumsum(sizes)[:-1])

    def precision(self, place, threshold) -> float:
        """Over campaigns."""
        passed = (self.units.predicted == place) & (self.units.probabilities >= threshold)
        return float((self.units.truth[passed] == place).mean()) if passed.any() else 1.0

    def passed(self, thresholds):
        """Which campaigns are decided."""
        floor = np.array([np.inf if one is None else one for one in thresholds] + [np.inf])
        return self.units.probabilities >= floor[self.units.predicted]


def naive(units, classes, target):
    """The lowest threshold with enough precision on the calibration itself, as teams choose it by eye."""
    for place in range(classes):
        put = units.predicted == place
        order = np.argsort(-units.probabilities[put], kind="stable")
        right = np.cumsum((units.truth[put] == place)[order]) / np.arange(1, put.sum() + 1)
        enough = np.flatnonzero(right >= target)
        yield units.probabilities[put][order][enough[-1]] if len(enough) else None


def redrawn(population, learned, guarantee, count, resamples) -> None:
    """How often each class's promise holds when campaigns are drawn anew, by method, and what is decided."""
    from ecom_rag.decision.rules import rules_of

    labels = learned.seeds.labels
    methods = ("campaigns", "rows", "naive")
    held, given = ({method: np.zeros(len(labels), int) for method in methods} for _ in range(2))
    every, coverage = ({method: [] for method in methods} for _ in range(2))
    random = np.random.default_rng(0)
    for _ in range(resamples):
        drawn = random.integers(0, len(population.units), count)
        rows = np.concatenate([population.members[one] for one in drawn])
        parts = {"campaigns": taken(population.units, drawn), "rows": taken(population.rows, rows)}
        chosen = {
            method: [rule.threshold for rule in rules_of(part, learned.thresholds, labels, guarantee).values()]
            for method, part in parts.items()
        }
        chosen["naive"] = list(naive(parts["rows"], len(labels), guarantee.precision))
        for method, thresholds in chosen.items():
            there = np.array([one is not None for one in thresholds])
            good = np.array(
                [
                    one is None or population.precision(place, one) >= guarantee.precision
                    for place, one in enumerate(thresholds)
                ]
            )
            held[method] += good & there
            given[method] += there
            every[method].append(good.all())
            coverage[method].append(population.passed(thresholds).mean())
    for method in methods:
        broken = (given[method] - held[method]) / resamples
        worst = int(np.argmax(broken))
        print(
            f"    {method:10} no promise broken in more than {broken[worst]:6.1%} of {resamples} resamples"
            f" ({labels[worst]}: threshold in {given[method][worst] / resamples:.0%}); none at all broken in"
            f" {np.mean(every[method]):6.1%}; decided {np.mean(coverage[method]):.3f}"
        )


def evasive(learned, calibration, fresh, pipeline, asked, texts) -> None:
    """Dev listings in every kind of evasive spelling, decided by thresholds of clean texts and of evasive ones."""
    from ecom_rag.decision.calibration import policy_of
    from ecom_rag.decision.evasive import evasive_units
    from ecom_rag.evaluation.evasion import KINDS

    def spelled(judged, rows, kinds, seed):
        chosen = [judged.results[row]["text"] for row in rows]
        options = {"innocent": [], "seed": seed}
        return evasive_units(chosen, judged.truth[rows], kinds, pipeline, learned.combiner, **options)

    one = np.flatnonzero(calibration.representative)
    calibrated = spelled(calibration, one, EVASIVE, 0)
    policies = [policy_of(calibration, learned, asked), policy_of(calibration, learned, asked, evasive=calibrated)]
    rows = np.random.default_rng(0).permutation(np.flatnonzero(fresh.representative))[:texts]
    every = {"clean": taken(fresh.units([]), np.searchsorted(np.flatnonzero(fresh.representative), rows))}
    every |= spelled(fresh, rows, KINDS, 1)
    print(f"  evasive spellings of {len(rows)} dev campaigns: thresholds of clean texts / of {', '.join(EVASIVE)} too")
    base = []
    for kind, units in every.items():
        cells = []
        for number, policy in enumerate(policies):
            rules = [policy.classes[label].threshold for label in learned.seeds.labels]
            floor = np.array([np.inf if one is None else one for one in rules] + [np.inf])
            passed = units.probabilities >= floor[units.predicted]
            right = units.truth == units.predicted
            share = (passed & right).mean()
            base += [share] if kind == "clean" else []
            cells.append(
                f"decided {passed.mean():.3f}, precision {right[passed].mean():.3f}, kept {share / base[number]:.3f}"
            )
        print(f"    {kind:12} {len(units):4}  right {right.mean():.3f}   {'   '.join(cells)}")


def false_positives(learned, without, calibration, fresh, innocent, asked, resamples) -> None:
    """A promised false-positive rate of 2 % when innocent campaigns are drawn anew, and the recall that it leaves.

    ``without`` is the same with a bank that has no innocents: nothing speaks for them there.
    """
    from ecom_rag.decision.guarantee import flag_threshold

    random = np.random.default_rng(0)
    for name, one, parts in (("with innocents", learned, calibration), ("without", without, fresh)):
        numbers = [place for place, label in enumerate(one.seeds.labels) if label in innocent]
        population = Population(parts, numbers, asked.similarity)
        mine = np.array([label in innocent for part in parts for label in part.labels])[population.chosen]
        flags = population.units.flags
        held, recalls, count = [], [], int(mine.sum() * len(parts[0].labels) / sum(len(part.labels) for part in parts))
        for _ in range(resamples):
            threshold = flag_threshold(random.choice(flags[mine], count), rate=0.02, delta=0.1)
            if threshold is None:
                continue
            held.append((flags[mine] >= threshold).mean() <= 0.02)
            recalls.append((flags[~mine] >= threshold).mean())
        print(
            f"  false positives at most 2 %, {name} in the bank: held in {np.mean(held):.1%} of {len(held)} resamples"
            f" of {count} innocent campaigns; flagged of the others {np.mean(recalls):.3f}"
        )


def transfer(policy, test) -> None:
    """The policy of the calibration on dev, over campaigns."""
    labels = policy.combiner.labels
    units = test.units([labels.index(one) for one in policy.innocent])
    floor = np.array(
        [np.inf if (one := policy.classes[label].threshold) is None else one for label in labels] + [np.inf]
    )
    passed = units.probabilities >= floor[units.predicted]
    recalls = []
    for place, label in enumerate(labels):
        rule, mine = policy.classes[label], passed & (units.predicted == place)
        right, own = int((units.truth[mine] == place).sum()), int((units.truth == place).sum())
        if rule.threshold is None:
            print(f"    {label:8} no threshold: {rule.why}")
            continue
        recalls.append(right / max(own, 1))
        print(
            f"    {label:8} threshold {rule.threshold:.4f} bound {rule.bound:.3f}; dev: {right} of {mine.sum()} campaigns"
            f" right ({right / max(mine.sum(), 1):.3f}), recall {recalls[-1]:.3f}"
        )
    right = units.truth[passed] == units.predicted[passed]
    print(
        f"  dev: decided {passed.mean():.3f} of {len(units)} campaigns, wrong among them {1 - right.mean():.4f}; mean recall"
        f" of the classes with a threshold {np.mean(recalls):.3f}"
    )


def main() -> None:
    """Print the tables."""
    from dataclasses import replace

    from ecom_rag import Encoder
    from ecom_rag.decision.calibration import policy_of
    from ecom_rag.decision.settings import Calibrate
    from ecom_rag.files.records import read

    args = arguments(
        __doc__,
        draws={"type": int, "default": 1},
        resamples={"type": int, "default": 500},
        sets={"default": ",".join(SETS)},
        evasive={"type": int, "default": 0, "help": "dev listings per kind of evasive spelling, instead of resamples"},
    )
    heading("Decisions")
    encoder = Encoder.from_pretrained("starter")
    for name in args.sets.split(","):
        innocent = SETS[name]
        items, test = (list(read(f"{args.data}/{name}/{part}.jsonl.gz")) for part in ("train", "dev"))
        remembered = Remembered(encoder, list(dict.fromkeys(one["text"] for one in [*items, *test])))
        for draw in range(args.draws):
            asked = Calibrate(innocent=innocent)
            learned, calibration, fresh, every, pipeline = prepared(items, test, remembered, draw, asked)
            print(f"\n{name}, draw {draw}: bank {len(learned.seeds.rows)}, calibration {len(calibration.labels)}")
            against_the_vote(learned, fresh, every)
            policy = policy_of(calibration, learned, asked)
            transfer(policy, fresh)
            numbers = [learned.seeds.labels.index(one) for one in innocent]
            if args.evasive:
                evasive(learned, calibration, fresh, pipeline, asked, args.evasive)
                continue
            population = Population([calibration, fresh], numbers, asked.similarity)
            count = int(calibration.representative.sum())
            for delta in (0.1, 0.05):
                print(f"  delta {delta}, {count} campaigns of {len(population.units)} drawn:")
                redrawn(population, learned, replace(policy.guarantee, delta=delta), count, args.resamples)
            for share in (0.25, 0.5, 2):
                print(f"  delta 0.1, {int(share * count)} campaigns drawn:")
                redrawn(population, learned, policy.guarantee, int(share * count), args.resamples // 5)
            if innocent:
                other = prepared(items, test, remembered, draw, Calibrate(), leave_out=innocent)
                sets = [calibration, fresh], list(other[1:3])
                false_positives(learned, other[0], *sets, innocent, asked, args.resamples)


if __name__ == "__main__":
    main()
