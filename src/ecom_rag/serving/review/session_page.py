"""Logging in and out, the switches of the page, and its files."""

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ecom_rag.serving.problems import Problem
from ecom_rag.serving.review.languages import CHOICES, chosen_of, remember
from ecom_rag.serving.review.pages import FILES, HOME, render, static
from ecom_rag.serving.review.review import Review

Field = Annotated[str, Form()]


def add_session(router: APIRouter, review: Review) -> None:
    """Add the pages; all of them are for people who are not logged in too.

    Args:
        router: Gets them.
        review: Logs people in.
    """

    @router.get("/login")
    def form(request: Request) -> Response:
        return render(request, "login.html", None, wrong=None)

    @router.post("/login")
    def log_in(request: Request, key: Field = "") -> Response:
        try:
            cookie = review.login(request, key)
        except Problem as error:
            wrong = chosen_of(request).say("log_in_failed")
            return render(request, "login.html", None, status=error.status, wrong=wrong)
        return RedirectResponse(HOME, 303, {"Set-Cookie": cookie})

    @router.post("/logout")
    def log_out(request: Request) -> Response:
        return RedirectResponse(f"{HOME}/login", 303, {"Set-Cookie": review.logout(request)})

    @router.post("/settings")
    def switch(
        request: Request, back: Field = HOME, language: Field = "", keys: Field = "", dim: Field = ""
    ) -> Response:
        response = RedirectResponse(_local(back), 303)
        for name, value in (("language", language), ("keys", keys), ("dim", dim)):
            if value in CHOICES[name]:
                remember(response, name, value, secure=request.url.scheme == "https")
        return response

    @router.get("/static/{name}")
    def file(name: str) -> Response:
        if name not in FILES:
            raise HTTPException(404)
        caching = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(static(name), media_type=f"{FILES[name]}; charset=utf-8", headers=caching)


def _local(place: str) -> str:
    """A place on this page, wherever a form asks to go: never another host."""
    path = place.partition("?")[0]
    safe = path == HOME or path.startswith(f"{HOME}/")
    return place if safe and not any(ord(one) < 33 or one == "\\" for one in place) and "//" not in path else HOME
