"""What a person chose for the page: language, single-key shortcuts, dimmed text; each is remembered by a cookie."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ecom_rag.serving.review import chinese, english

TABLES: Mapping[str, Mapping[str, str]] = {"en": english.WORDS, "zh": chinese.WORDS}
HTML_NAMES = {"en": "en", "zh": "zh-CN"}
CHOICES: Mapping[str, tuple[str, ...]] = {"language": ("en", "zh"), "keys": ("on", "off"), "dim": ("on", "off")}
_YEAR = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Chosen:
    """What holds for one request.

    Args:
        language: One of ``TABLES``.
        keys: Whether single keys do something.
        dim: Whether listings are blurred until they are looked at.
    """

    language: str
    keys: bool
    dim: bool

    def say(self, key: str, /, **values: Any) -> str:
        """A sentence in the language.

        Args:
            key: Of the tables.
            values: For its places.
        """
        return TABLES[self.language][key].format(**values)

    def age(self, seconds: float) -> str:
        """A length of time in the largest unit that fits."""
        minutes = max(0, int(seconds // 60))
        if not minutes:
            return self.say("under_minute")
        if minutes < 60:
            return self.say("minutes", count=minutes)
        return self.say("hours", count=minutes // 60) if minutes < 48 * 60 else self.say("days", count=minutes // 1440)


def chosen_of(request: Request) -> Chosen:
    """What the cookies of a request say, or else its ``Accept-Language``."""
    cookies = request.cookies
    language = cookies.get(_cookie("language"), "")
    if language not in TABLES:
        language = preferred(request.headers.get("accept-language", ""))
    return Chosen(language, cookies.get(_cookie("keys")) != "off", cookies.get(_cookie("dim")) == "on")


def preferred(accepted: str) -> str:
    """The language that a browser likes best, of those that there are.

    Args:
        accepted: The header ``Accept-Language``.
    """
    ranked = []
    for place, part in enumerate(accepted.split(",")[:20]):
        name, _, rest = part.strip().partition(";")
        language = name.strip().lower().partition("-")[0]
        quality = rest.strip().removeprefix("q=") or "1"
        try:
            weight = float(quality)
        except ValueError:
            weight = 0.0
        if language in TABLES and weight > 0:
            ranked.append((-weight, place, language))
    return min(ranked)[2] if ranked else "en"


def remember(response: Response, name: str, value: str, *, secure: bool) -> None:
    """Set the cookie of a choice.

    Args:
        response: Sets it.
        name: One of ``CHOICES``.
        value: One of its values.
        secure: Whether the page came over https.
    """
    response.set_cookie(_cookie(name), value, max_age=_YEAR, path="/review", samesite="strict", secure=secure)


def _cookie(name: str) -> str:
    return f"ecom_rag_{name}"
