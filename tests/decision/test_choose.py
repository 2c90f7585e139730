"""What to label next: uncertain and new, one a campaign, and an audit that is a random sample of all campaigns."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.decision.choose import choose, choose_file, novelty, uncertainty
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from helpers import jsonl
from helpers.decided import decided


def chosen(items, count, **options):
    return choose(items, count=count, **options)


def named(found, by=None):
    return [one["metadata"]["id"] for one in found.records if by is None or one["chosen"]["by"] == by]


def unsure(number, margin, **changes):
    first = (1 + margin) / 2
    return {**decided(number, probabilities={"a": first, "b": 1 - first}), **changes}


def test_uncertainty_is_one_minus_the_margin():
    assert uncertainty((0.5, 0.5)) == 1 and uncertainty((1.0,)) == 0 and uncertainty(()) == 1
    assert uncertainty((0.6, 0.3, 0.1)) == pytest.approx(0.7)


def test_novelty_by_hand():
    """Pairs ab bc cd de against ab bc cd dx: three of five in common; a copy in capitals and with blanks is a copy."""
    assert novelty({"text": "abcde", "topk_seed": ["xyz", "abcdx"]}) == pytest.approx(2 * (1 - 3 / 5))
    assert novelty({"text": "AB cd", "topk_seed": ["abcd"]}) == 0
    assert novelty({"text": "减肥茶", "topk_seed": ["减肥药"]}) == 1  # one of three
    assert novelty({"text": "abcd", "topk_seed": []}) == 1 and novelty({"text": "茶", "topk_seed": ["茶"]}) == 0


def test_the_highest_scores_one_a_campaign():
    items = [unsure(n, margin) for n, margin in enumerate([0.9, 0.1, 0.5, 0.0, 0.2])]
    for item in (items[1], items[3]):
        item["decision"]["campaign"] = "one"
    found = chosen(items, 3, audit_share=0)
    assert named(found) == [3, 4, 2] and found.campaigns == 4 and found.audit == 0
    assert [one["chosen"]["by"] for one in found.records] == ["uncertainty"] * 3
    scores = [one["chosen"]["score"] for one in found.records]
    assert scores == sorted(scores, reverse=True)
    one = found.records[0]["chosen"]
    assert one["uncertainty"] == 1 and one["score"] == pytest.approx(one["novelty"] * one["uncertainty"])
    assert {key: value for key, value in found.records[0].items() if key != "chosen"} == items[3]


def test_new_texts_go_before_copies_of_seeds():
    items = [unsure(1, 0.4, topk_seed=["text 1"]), unsure(2, 0.4, topk_seed=["something else"])]
    assert named(chosen(items, 1, audit_share=0)) == [2]


def test_the_audit_is_drawn_from_all_campaigns_and_marked():
    items = [decided(n, action="label" if n % 2 else "review") for n in range(200)]
    found = chosen(items, 50, audit_share=0.2)
    assert (len(found.records), found.audit) == (50, 10) and len(set(named(found))) == 50
    audit = [one for one in found.records if one["chosen"]["by"] == "audit"]
    assert found.records[-10:] == audit and {one["chosen"]["probability_of_selection"] for one in audit} == {0.05}
    assert {one["decision"]["action"] for one in audit} == {"label", "review"}
    assert not any("probability_of_selection" in one["chosen"] for one in found.records[:40])


def test_each_campaign_has_the_same_chance_whatever_its_size():
    """20 campaigns, one of 100 texts: in 600 draws of five each comes in about a quarter, and texts of it equally."""
    sizes = [100] + [1] * 19
    items = [decided(f"{c} {t}", campaign=f"c{c}") for c, size in enumerate(sizes) for t in range(size)]
    drawn, texts = Counter(), Counter()
    for seed in range(600):
        found = chosen(items[-20:] + items[:8], 5, audit_share=1, seed=seed)
        drawn.update(one["decision"]["campaign"] for one in found.records)
        texts.update(one["text"] for one in found.records if one["decision"]["campaign"] == "c0")
    assert all(110 < count < 190 for count in drawn.values()) and len(drawn) == 20
    assert len(texts) == 9 and all(count > 4 for count in texts.values())


def test_what_is_uncertain_cannot_change_what_is_audited():
    items = [unsure(n, n / 100) for n in range(100)]
    turned = [unsure(n, 1 - n / 100) for n in range(100)]
    both = [named(chosen(one, 40, audit_share=0.5, seed=3), "audit") for one in (items, turned)]
    assert both[0] == both[1] and len(both[0]) == 20


def brute(items, count):
    best = {}
    for item in items:
        score = uncertainty(tuple(sorted(item["decision"]["probabilities"].values(), reverse=True))) * novelty(item)
        campaign = item["decision"]["campaign"]
        best[campaign] = max(best.get(campaign, -1), round(score, 6))
    return sorted(best.values(), reverse=True)[:count]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20)), max_size=80), st.integers(1, 8), st.randoms())
def test_the_same_choice_in_any_order_and_as_by_brute_force(drawn, count, chance):
    items = []
    for n, (campaign, margin) in enumerate(drawn):
        item = unsure(n, margin / 20)
        item["decision"]["campaign"] = str(campaign)
        items.append(item)
    for share in (0, 0.3, 1):
        one = chosen(items, count, audit_share=share, seed=1)
        other = chosen(chance.sample(items, len(items)), count, audit_share=share, seed=1)
        assert one == other
        assert len(one.records) == min(count, one.campaigns) == len({r["decision"]["campaign"] for r in one.records})
    alone = chosen(items, count, audit_share=0)
    assert [r["chosen"]["score"] for r in alone.records] == pytest.approx(brute(items, count))


def test_the_audits_part_is_rounded_up():
    items = [decided(n) for n in range(100)]
    assert [chosen(items, count, audit_share=0.1).audit for count in (1, 10, 11, 30)] == [1, 1, 2, 3]
    assert chosen(items, 100, audit_share=0.07).audit == 7  # as floats the product is above 7


def test_another_seed_draws_another_audit():
    items = [decided(n) for n in range(100)]
    assert named(chosen(items, 10, audit_share=1)) != named(chosen(items, 10, audit_share=1, seed=1))


def test_memory_holds_what_is_chosen_only():
    """Scores that rise through the file make every record a candidate for a while."""
    from ecom_rag.decision.choose import _Best

    best = _Best(5)
    for n in range(10_000):
        assert best.admits(n)
        best.offer(str(random.Random(n).randrange(50)), (n,), n)
        assert len(best._entries) <= 5 and len(best._heap) <= 40
    assert not best.admits(9000) and not _Best(0).admits(1)
    assert [kept for _, kept in best.best()] == sorted((k for _, k in best.best()), reverse=True)


def test_more_than_there_is_and_nothing_at_all():
    items = [decided(n, campaign=f"c{n % 3}") for n in range(7)]
    found = chosen(items, 10)
    assert len(found.records) == 3 and found.audit == 1
    assert found.notes == ["there are 3 campaigns in 7 records, fewer than the `count` 10; all were chosen"]
    assert found.records[-1]["chosen"]["probability_of_selection"] == pytest.approx(1 / 3)
    nothing = chosen([], 10)
    assert nothing.records == [] and nothing.notes == ["there are no records; nothing was chosen"]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet", ".json"])
def test_a_file_of_any_format(tmp_path, ending):
    source = jsonl.write(tmp_path / "d.jsonl", [decided(n) for n in range(20)])
    output = tmp_path / f"o{ending}"
    found = choose_file(source, output, count=5)
    assert list(records.read(output)) == found.records
    with pytest.raises(UsageError, match="is also an input"):
        choose_file(source, source, count=5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": 0}, "`count` is 0"),
        ({"count": 1, "audit_share": 1.1}, "from 0 to 1"),
        ({"count": 1, "seed": -1}, "`seed`"),
    ],
)
def test_arguments_out_of_range(options, said):
    with pytest.raises(UsageError, match=said):
        choose([], **options)


def test_what_was_not_decided_is_named(tmp_path):
    with pytest.raises(RecordError, match=r'decided record 1: "decision" is missing'):
        chosen([decided(1), {"text": "a", "metadata": {}}], 1)
    stripped = decided(2)
    del stripped["topk_seed"]
    with pytest.raises(RecordError, match=r'decided record 0: "topk_seed" is not an array of texts'):
        chosen([stripped], 1)
    with pytest.raises(RecordError, match=r'd.jsonl:2: "topk_seed" is not an array'):
        choose_file(jsonl.write(tmp_path / "d.jsonl", [decided(1), stripped]), tmp_path / "o.jsonl", count=1)
    assert not (tmp_path / "o.jsonl").exists()
