"""Kinds of evasive spelling that change more than one character at a time: see ``evasion``.

Readings are those of pypinyin's phrases, where the ``variant`` route knows each character's first one; emoji are our
own list of words, where the route knows CLDR's names.
"""

import random
import re
from collections.abc import Callable

_EMOJI = """
苹果🍎 手机📱 电脑💻 手表⌚ 相机📷 耳机🎧 电视📺 游戏🎮 钱💰 美元💵 银行🏦 信用卡💳 信💌 邮件📧
电话📞 药💊 针💉 医院🏥 酒🍷 啤酒🍺 茶🍵 咖啡☕ 奶🥛 面🍜 米🍚 肉🥩 鱼🐟 虾🦐 鸡🐔 鸭🦆 牛🐂 羊🐑
猪🐷 马🐎 狗🐶 猫🐱 虎🐯 龙🐉 蛇🐍 花🌸 玫瑰🌹 树🌲 草🌿 车🚗 飞机✈️ 船🚢 房🏠 家🏠 门🚪 床🛏️ 灯💡
伞☂️ 刀🔪 枪🔫 火🔥 水💧 雪❄️ 月🌙 太阳☀️ 星⭐ 书📖 笔🖊️ 包👜 衣👕 裤👖 裙👗 鞋👟 帽🎩 口红💄 戒指💍
礼物🎁 球⚽ 爱❤️ 心❤️ 手✋ 眼👁️ 老师👩‍🏫 警察👮 宝宝👶 女👩 男👨 票🎫 奖🏆 骰子🎲
"""
_WORDS = {re.sub("[^一-鿿]", "", one): re.sub("[一-鿿]", "", one) for one in _EMOJI.split()}
_MARKS = ("", "", "", "-", ".", " ")  # between a reading and what follows it
_RUN = (2, 3, 4)  # characters whose initials stand together

Changed = tuple[str, int]
"""A text, and how many of its characters were changed."""


def pinyin(text: str, wanted: int, chance: random.Random) -> Changed:
    """Readings in letters in place of characters, now and then with a mark between."""
    readings = _readings(text)
    places = [place for place, reading in enumerate(readings) if reading]
    chosen = set(chance.sample(places, min(wanted, len(places))))
    out = [readings[n] + chance.choice(_MARKS) if n in chosen else c for n, c in enumerate(text)]
    return "".join(out), len(chosen)


def initials(text: str, wanted: int, chance: random.Random) -> Changed:
    """The initials of two to four neighbouring characters in their place; ``v`` for ``w`` as often as not."""
    readings = _readings(text)
    out, changed = list(text), 0
    for start in chance.sample(range(len(text)), len(text)):
        size = min(chance.choice(_RUN), max(_RUN[0], wanted - changed))
        span = range(start, start + size)
        free = all(place < len(text) and readings[place] and out[place] == text[place] for place in span)
        beside = [out[n] != text[n] for n in (start - 1, start + size) if 0 <= n < len(text)]
        if changed < wanted and free and not any(beside):
            for place in span:
                letter = readings[place][0]
                out[place] = "v" if letter == "w" and chance.random() < 0.5 else letter
            changed += size
    return "".join(out), changed


def emoji(text: str, wanted: int, chance: random.Random) -> Changed:
    """An emoji in place of a word."""
    changed = 0
    for word in chance.sample(sorted(_WORDS, key=lambda word: (-len(word), word)), len(_WORDS)):
        if changed < wanted and word in text:
            text = text.replace(word, _WORDS[word], 1)
            changed += len(word)
    return text, changed


def order(text: str, wanted: int, chance: random.Random) -> Changed:
    """Two neighbouring characters in each other's place."""
    out, changed = list(text), 0
    for place in chance.sample(range(len(text) - 1), max(0, len(text) - 1)):
        pair = text[place : place + 2]
        untouched = out[place : place + 2] == list(pair)
        if changed < wanted and untouched and all("一" <= c <= "鿿" for c in pair) and pair[0] != pair[1]:
            out[place], out[place + 1] = out[place + 1], out[place]
            changed += 2
    return "".join(out), changed


SPANS: dict[str, Callable[[str, int, random.Random], Changed]] = {
    "pinyin": pinyin,
    "initials": initials,
    "emoji": emoji,
    "order": order,
}


def _readings(text: str) -> list[str]:
    """For each character its toneless reading within its phrase, or nothing."""
    from pypinyin import lazy_pinyin

    found: list[str] = lazy_pinyin(text, errors=lambda other: [""] * len(other))  # type: ignore[arg-type, return-value]
    return found if len(found) == len(text) else [""] * len(text)
