"""Training groups for a reranker: Chinese ones from an unlabelled query log and titles, random texts for mined ones.

A Chinese noun phrase ends in its head: a 手机壳 is a shell and no phone, a 儿童手机 is a phone. So what many different
queries end in is a product word, and a text is relevant for it where it ends a phrase, and is not where it only opens a
longer one. Such texts hold all of the word's characters: no lexical route tells them apart.

Usage: python recipes/reranker_groups.py chinese QUERIES TITLES WORDS_OUTPUT PARTS_OUTPUT
       python recipes/reranker_groups.py random MINED OUTPUT [LIMIT]
"""

import json
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ecom_rag import records

PHRASE = re.compile("[\u4e00-\u9fff]+")
LENGTHS = range(2, 6)  # of a product word, in characters
RELEVANT, HELD, OTHER, RANDOM = 4.0, 0.5, 0.0, -3.0  # scores of a text; grades of homedepot go from 0 to 6
Group = dict[str, Any]


def product_words(queries: Iterable[str]) -> tuple[set[str], set[str]]:
    """What four or more queries end in, after three or more different characters; and what seldom stands elsewhere."""
    ends: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    before = defaultdict(set)
    for query in queries:
        for match in PHRASE.finditer(query):
            phrase = match[0]
            uses.update({phrase[i : i + n] for n in LENGTHS for i in range(len(phrase) - n + 1)})
            for n in LENGTHS if match.end() == len(query) else ():
                ends[phrase[-n:]] += len(phrase) >= n
                before[phrase[-n:]].add(phrase[-n - 1 : -n] or "^")
    often = {word for word, count in ends.items() if count >= 4 and len(word) > 1}
    words = {word for word in often if len(before[word]) >= 3 and ends[word] >= uses[word] / 4}
    return words, {word for word in often if ends[word] >= uses[word] / 2}


def spans(text: str, words: set[str]) -> Iterator[tuple[str, int, int]]:
    """Every product word of a text with its begin and end."""
    for match in PHRASE.finditer(text):
        for begin in range(match.start(), match.end() - 1):
            for end in range(begin + LENGTHS[0], min(begin + LENGTHS[-1], match.end()) + 1):
                if text[begin:end] in words:
                    yield text[begin:end], begin, end


def split(text: str, words: set[str], sure: set[str]) -> tuple[set[str], set[str]]:
    """The words that end a phrase of a text, and those that only stand within or before a longer one."""
    found = list(spans(text, words))
    ends, held = set(), set()
    for word in {word for word, _, _ in found}:
        open_ = [
            not any((b <= begin and end < e) or (b == end and other in sure) for other, b, e in found)
            for same, begin, end in found
            if same == word
        ]
        last = [end for same, _, end in found if same == word]
        if not any(open_):
            held.add(word)
        elif any(free and not PHRASE.match(text[end : end + 1]) for free, end in zip(open_, last, strict=True)):
            ends.add(word)
    return ends, held


def chinese(queries: Sequence[str], titles: Sequence[str], draw: random.Random) -> tuple[list[Group], list[Group]]:
    """Groups of product words against texts, and of parts of titles against titles."""
    words, sure = product_words(queries)
    ends, held, shown, inside = (defaultdict[str, list[str]](list) for _ in range(4))
    for texts, ending, holding in ((queries, ends, held), (titles, shown, inside)):
        for text in texts:
            final, within = split(text, words, sure)
            for word in final - {text}:
                ending[word].append(text)
            for word in within:
                holding[word].append(text)
    alike = defaultdict(set)
    for word in words:
        for character in word:
            alike[character].add(word)

    def longer(text: str, others: list[str]) -> str:
        """Titles are several phrases of one product."""
        more = draw.sample(others, min(len(others), draw.choice((0, 0, 1, 2))))
        return draw.choice((" ", "")).join([text, *(other for other in more if other != text)])

    about_words = []
    for word in sorted(word for word in words if len(ends[word]) >= 2):
        others = sorted(w for c in set(word) for w in alike[c] if w not in word and word not in w and ends[w])
        traps, own = held[word] + 3 * inside[word], ends[word] + 3 * shown[word]
        for _ in range(min(8, 1 + len(own) // 4)):
            texts = [(text if len(text) > 20 else longer(text, ends[word]), RELEVANT) for text in some(draw, own, 3)]
            for text in some(draw, traps, 6):
                same = [other for other in held[word] if other[-2:] == text[-2:]]
                texts.append((text if len(text) > 20 else longer(text, same), HELD))
            texts += [(longer(draw.choice(ends[other]), ends[other]), OTHER) for other in some(draw, others, 4)]
            texts += [(text, RANDOM) for text in some(draw, queries, 2) + some(draw, titles, 3)]
            about_words.append(group(word, (t for t in texts if t[1] >= HELD or word not in t[0])))
    about_parts = []
    for title in titles:
        length = draw.randint(5, 12)
        begin = draw.randrange(max(1, len(title) - length))
        part = title[begin : begin + length].strip()
        near = sorted({other for word, _, _ in spans(title, words) for other in shown[word]} - {title})
        texts = [(title, RELEVANT), *((text, OTHER) for text in some(draw, near, 8))]
        texts += [(text, RANDOM) for text in some(draw, titles, 4) + some(draw, queries, 1)]
        if len(title) >= 16 and len(part) >= 4:
            about_parts.append(group(part, (t for t in texts if t[1] == RELEVANT or part not in t[0])))
    return about_words, about_parts


def some(draw: random.Random, texts: Sequence[str], count: int) -> list[str]:
    """At most so many of them."""
    return draw.sample(texts, min(len(texts), count))


def group(query: str, texts: Iterable[tuple[str, float]]) -> Group:
    """A line of training data; of equal texts the best counts."""
    scores: dict[str, float] = {}
    for text, score in texts:
        scores[text] = max(score, scores.get(text, score))
    sides = {"pos": [t for t in scores if scores[t] >= RELEVANT], "neg": [t for t in scores if scores[t] < RELEVANT]}
    return {"query": query} | sides | {f"{side}_scores": [scores[t] for t in sides[side]] for side in sides}


def with_random(groups: Sequence[Group], draw: random.Random) -> Iterator[Group]:
    """Mined groups with eight texts of other groups, which have nothing to do with the query."""
    texts = sorted({text for item in groups for text in item["pos"] + item["neg"]})
    for item in groups:
        known = {*item["pos"], *item["neg"]}
        more = [text for text in draw.sample(texts, 8) if text not in known]
        yield item | {
            "neg": item["neg"] + more,
            "pos_scores": item.get("pos_scores", [RELEVANT] * len(item["pos"])),
            "neg_scores": item.get("neg_scores", [OTHER] * len(item["neg"])) + [RANDOM] * len(more),
        }


def write(path: str, groups: Iterable[Group]) -> None:
    """One line each."""
    Path(path).write_bytes(b"".join(map(records.dumps, groups)))


def main() -> None:
    """See the usage above."""
    draw = random.Random(1)
    if sys.argv[1] == "random":
        limit = int(sys.argv[4]) if len(sys.argv) > 4 else None
        groups = [json.loads(line) for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()]
        write(sys.argv[3], islice(with_random(draw.sample(groups, len(groups)), draw), limit))
        return
    texts = [list(dict.fromkeys(r["text"].lower().strip() for r in records.read(path))) for path in sys.argv[2:4]]
    for path, groups in zip(sys.argv[4:], chinese(*texts, draw), strict=True):
        write(path, draw.sample(groups, len(groups)))
        print(f"{len(groups):,} groups: {path}")


if __name__ == "__main__":
    main()
