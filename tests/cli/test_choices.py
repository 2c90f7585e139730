"""What the command line offers is what the library's tables hold; names are written twice so that --help is fast."""

import typing

import pytest

from ecom_rag.cli import idle, mining, options, recall
from ecom_rag.mining import finders
from ecom_rag.pipeline.scoring import MODES
from ecom_rag.retrieval.routes import ROUTES


def test_modes_and_routes():
    assert tuple(options.Mode) == MODES
    assert tuple(mining.Route) == finders.ROUTES
    assert {name for name, route in ROUTES.items() if route.outputs} == idle.ENCODED


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_the_help_of_routes_names_them_all(name):
    hints = typing.get_type_hints(recall.recall, include_extras=True)
    assert name in typing.get_args(hints["routes"])[1].help
