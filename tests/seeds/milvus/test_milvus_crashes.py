"""Milvus Lite is killed in the middle of changes: nothing acknowledged is lost, nothing deleted comes back."""

import pytest

from ecom_rag.errors import BankError
from ecom_rag.seeds.opening import create
from helpers.server_kills import kill_rounds
from helpers.small_banks import Hashing

pytestmark = pytest.mark.slow


@pytest.fixture
def server(milvus_lite):
    """One of its own, which may be killed."""
    from helpers.milvus_server import Lite

    found = Lite()
    yield found
    found.remove()


def end_turns(bank):
    """The turn of a killed writer ends, without waiting for it."""
    bank.engine.store.client.delete(bank.engine.address.name, 'key >= "claim/" and key < "claim0"')


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(server):
    assert kill_rounds(server, 4, restarted=end_turns) > 0


def test_a_handle_outlives_a_restart_of_the_server(server):
    bank = create(server.url("restarts"), encoder=Hashing())
    bank.upsert([{"text": "one", "metadata": {"id": 1}}])
    server.kill()
    with pytest.raises(BankError, match="the server says"):
        bank.upsert([{"text": "two", "metadata": {"id": 2}}])
    server.start()
    end_turns(bank)
    assert bank.upsert([{"text": "two", "metadata": {"id": 2}}]).sequence == 2 == len(bank)
    bank.close()
