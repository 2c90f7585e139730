"""The page on which people look at what the policy sent to review.

What comes in: the journal, and callables for what others own (``Review``). What goes out: a router of HTML pages that
work without scripts; htmx and keys only make them faster.

``review``        what the page needs of the rest of the service
``queue_page``    the queue and the open item;  ``acts`` are the forms on it
``seed_page``     a text becomes a seed
``dashboard``     figures;  ``history_page`` is what was done, and exports
``session_page``  login, switches, files
``looks``         an item as it is shown, of ``marks`` (what matched), ``spelled`` (what an evasive spelling stands for)
                  and ``hidden`` (characters that nobody sees)
``languages``     every visible word, in ``english`` and in ``chinese``
``pages``         templates to answers, with their headers
"""

from fastapi import APIRouter

from ecom_rag.serving.review.acts import add_acts
from ecom_rag.serving.review.dashboard import add_dashboard
from ecom_rag.serving.review.history_page import add_history
from ecom_rag.serving.review.pages import PageRoute
from ecom_rag.serving.review.queue_page import Views, add_queue
from ecom_rag.serving.review.review import Labels, Review, Similar
from ecom_rag.serving.review.seed_page import add_seeds
from ecom_rag.serving.review.session_page import add_session

__all__ = ["PUBLIC", "Labels", "Review", "Similar", "router"]

PUBLIC = ("/review/login", "/review/logout", "/review/settings", "/review/static/")
"""Paths for people who are not logged in; one that ends in ``/`` stands for all below it."""


def router(review: Review) -> APIRouter:
    """All pages below ``/review``.

    Args:
        review: What they need.
    """
    pages = APIRouter(prefix="/review", route_class=PageRoute, include_in_schema=False)
    views = Views()
    add_session(pages, review)
    add_queue(pages, review, views)
    add_acts(pages, review, views.is_last)
    add_seeds(pages, review)
    add_dashboard(pages, review)
    add_history(pages, review)
    return pages
