"""The server is killed in the middle of changes: nothing acknowledged is lost, nothing deleted comes back."""

import pytest

from ecom_rag.errors import BankError
from ecom_rag.seeds.opening import create
from helpers.postgres_server import Server
from helpers.server_kills import kill_rounds
from helpers.small_banks import Hashing

pytestmark = pytest.mark.slow


@pytest.fixture
def server(postgres_server):
    """One of its own, which may be killed."""
    found = Server()
    yield found
    found.remove()


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(server):
    assert kill_rounds(server, 4) > 0


def test_a_handle_outlives_a_restart_of_the_server(server):
    bank = create(server.url("restarts"), encoder=Hashing())
    bank.upsert([{"text": "one", "metadata": {"id": 1}}])
    server.kill()
    with pytest.raises(BankError, match="the server says"):
        bank.upsert([{"text": "two", "metadata": {"id": 2}}])
    server.start()
    assert bank.upsert([{"text": "two", "metadata": {"id": 2}}]).sequence == 2 == len(bank)
    server.kill()
    server.start()
    assert bank.upsert([{"text": "three", "metadata": {"id": 3}}]).sequence == 3 == len(bank)
    bank.close()
