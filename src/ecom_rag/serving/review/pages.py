"""Templates to answers: what all pages of the review share, their headers, and what they say when something fails."""

import hashlib
from collections.abc import Callable, Coroutine
from functools import lru_cache
from importlib import resources
from typing import Any
from urllib.parse import urlencode

from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ecom_rag.errors import EcomRagError
from ecom_rag.serving.journal import LeaseLost, UnknownDecision
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.review.hidden import pieces, visible
from ecom_rag.serving.review.languages import HTML_NAMES, chosen_of
from ecom_rag.serving.review.review import LoginNeededError

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send "Origin: null" with forms
    "X-Content-Type-Options": "nosniff",
}
FILES = {
    "review.css": "text/css",
    "review.js": "text/javascript",
    "htmx.min.js": "text/javascript",
    "htmx.LICENSE.txt": "text/plain",
}
HOME = "/review"


class PageRoute(APIRoute):
    """A route of pages: every answer has ``HEADERS``, and what fails is a page too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, with both."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                response = await inner(request)
            except LoginNeededError:
                response = RedirectResponse(f"{HOME}/login", 303)
            except LeaseLost:
                response = go(request, said="lost")
            except HTTPException as error:
                response = problem(request, error.status_code, "")
            except UnknownDecision:
                response = problem(request, 404, "")
            except Problem as error:
                response = problem(request, error.status, error.message)
            except EcomRagError as error:
                response = problem(request, 422, str(error))
            response.headers.update(HEADERS)
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return handle


def render(request: Request, template: str, actor: str | None, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page.

    Args:
        request: Its cookies choose language and switches.
        template: Name of the file.
        actor: Who is logged in.
        status: Of the answer.
        values: For the template.
    """
    chosen = chosen_of(request)
    shared = {
        "t": chosen.say,
        "age": chosen.age,
        "chosen": chosen,
        "lang": HTML_NAMES[chosen.language],
        "other_language": "zh" if chosen.language == "en" else "en",
        "other_lang": HTML_NAMES["zh" if chosen.language == "en" else "en"],
        "actor": actor,
        "home": HOME,
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "file": _file,
    }
    return HTMLResponse(_environment().get_template(template).render({**shared, **values}), status)


def problem(request: Request, status: int, why: str) -> HTMLResponse:
    """A page that says why something did not work.

    Args:
        request: That failed.
        status: Of the answer.
        why: In words; by default that there is nothing here.
    """
    return render(request, "problem.html", None, status=status, why=why or chosen_of(request).say("not_found"))


def go(request: Request, place: str = HOME, **query: Any) -> RedirectResponse:
    """Send the browser on after a form; filter and queue of the page go with it.

    Args:
        request: Of the form.
        place: Path.
        query: Further parts, e.g. what is said there; ``None`` for none.
    """
    kept = {name: request.query_params.get(name) for name in ("filter", "queue")}
    parts = {name: value for name, value in {**kept, **query}.items() if value not in (None, "")}
    return RedirectResponse(f"{place}?{urlencode(parts)}" if parts else place, 303)


def with_query(request: Request, path: str, **query: Any) -> str:
    """A local address that keeps filter and queue."""
    kept = {name: request.query_params.get(name) for name in ("filter", "queue")}
    parts = {name: value for name, value in {**kept, **query}.items() if value not in (None, "")}
    return f"{path}?{urlencode(parts)}" if parts else path


@lru_cache(maxsize=16)
def static(name: str) -> bytes:
    """A file of the page, one of ``FILES``."""
    return resources.files(__package__).joinpath("static", name).read_bytes()


@lru_cache(maxsize=16)
def _file(name: str) -> str:
    """Address of a file, another one where its content is."""
    return f"{HOME}/static/{name}?{hashlib.sha256(static(name)).hexdigest()[:12]}"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("ecom_rag.serving.review"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["pieces"] = pieces
    found.filters["visible"] = visible
    return found
