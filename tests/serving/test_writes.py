"""Changes through the service: answered once, on their terms, and never half."""

import random
import signal
import subprocess
import sys
import time

import pytest

from ecom_rag.errors import BankError, RecordError, UsageError
from ecom_rag.seeds.bank import BankSettings, SeedBank, create
from ecom_rag.serving import writes
from ecom_rag.serving.banks import Banks
from ecom_rag.serving.problems import Problem
from helpers.small_banks import seed


@pytest.fixture
def bank(tmp_path):
    with create(tmp_path / "bank", BankSettings(routes=["bm25"])) as made:
        made.upsert([seed(number) for number in range(15)])
        yield made


def problem(call):
    with pytest.raises(Problem) as caught:
        call()
    assert str(caught.value) and "/" not in caught.value.message.replace("If-Match", "")  # no path of the server
    return caught.value.status, caught.value.code


def test_a_filter_needs_a_confirmation_and_can_be_tried(bank):
    tried = writes.dry_run(bank, filter='label = "x"')
    assert (tried.sequence, tried.removed) == (1, 5)
    assert writes.dry_run(bank, ["s1", "s2", "none"]).removed == 2
    assert writes.dry_run(bank, filter="nothing = 1").notes
    assert problem(lambda: writes.delete(bank, filter='label = "x"')) == (422, "confirmation_required")
    assert len(bank) == 15 and bank.sequence == 1
    for wrong in (
        lambda: writes.dry_run(bank),
        lambda: writes.dry_run(bank, ["s1"], filter="a = 1"),
        lambda: writes.delete(bank),
        lambda: writes.delete(bank, filter="", confirmed=True),
        lambda: writes.delete(bank, filter='label != "none"', confirmed=True),
    ):
        with pytest.raises(UsageError):
            wrong()
    assert writes.delete(bank, filter='label = "x"', confirmed=True, expected_sequence=tried.sequence).removed == 5
    assert writes.delete(bank, ["s1", "none"]).removed == 1


def test_another_sequence_is_412_and_a_key_for_another_request_409(bank):
    first = writes.upsert(bank, [seed(20)], expected_sequence=1, key="client:1")
    assert (first.sequence, first.repeated) == (2, False)
    assert writes.answered(bank, [seed(20)], expected_sequence=1, key="client:1").sequence == 2
    assert writes.answered(bank, [seed(20)], key=None) is None
    assert writes.answered(bank, [seed(21)], key="client:2") is None
    assert writes.upsert(bank, [seed(20)], expected_sequence=1, key="client:1").repeated
    for other in (
        lambda: writes.upsert(bank, [seed(21)], expected_sequence=1, key="client:1"),
        lambda: writes.upsert(bank, [seed(20)], expected_sequence=2, key="client:1"),
        lambda: writes.answered(bank, [seed(20)], key="client:1"),
        lambda: writes.delete(bank, ["s20"], key="client:1"),
    ):
        assert problem(other) == (409, "idempotency_key_reused")
    assert problem(lambda: writes.upsert(bank, [seed(21)], expected_sequence=1)) == (412, "sequence_changed")
    assert problem(lambda: writes.delete(bank, ["s1"], expected_sequence=1, key="3")) == (412, "sequence_changed")
    for key in ("", "k" * 256, "a\nb", "钥匙"):
        assert problem(lambda key=key: writes.upsert(bank, [], key=key)) == (422, "invalid_idempotency_key")
    with pytest.raises(RecordError):
        writes.upsert(bank, [seed(30), {"text": ""}], key="4")
    assert bank.sequence == 2


def test_a_busy_bank_a_full_disk_and_a_closed_bank(bank):
    with SeedBank.open(bank.path, timeout=0.1) as other, bank.store.writing():
        assert problem(lambda: writes.upsert(other, [seed(20)])) == (503, "bank_busy")

    bank.store._writing().execute("PRAGMA max_page_count = 1")  # no page more than there are
    large = [{"text": "common " * 5000, "metadata": {"id": f"large{number}"}} for number in range(20)]
    assert problem(lambda: writes.upsert(bank, large, key="1")) == (507, "disk_full")
    assert (len(bank), bank.sequence) == (15, 1)
    bank.store._writing().execute("PRAGMA max_page_count = 1000000")
    assert not writes.upsert(bank, large, key="1").repeated
    assert (len(bank), bank.sequence) == (35, 2)
    bank.close()
    with pytest.raises(BankError, match="is closed"):
        writes.upsert(bank, [seed(21)])


def test_a_write_is_read_once_it_is_visible(bank):
    with Banks(poll_seconds=60) as banks:
        banks.open("seeds", bank.path)
        for number in range(20, 30):
            with banks.lease("seeds") as leased:
                change = writes.upsert(leased, [seed(number)])
            assert banks.visible("seeds", change.sequence).result(20) >= change.sequence  # long before the next poll
            with banks.reading("seeds") as reader:
                [rows] = reader.view.own_rows([seed(number)], "id")
                assert reader.view.record(rows[0]) == seed(number)


SERVICE = """
import sys
from ecom_rag.serving import writes
from ecom_rag.serving.banks import Banks
with Banks(poll_seconds=0.01) as banks:
    banks.open("seeds", sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        number = int(line)
        with banks.lease("seeds") as bank:
            record = {"text": f"common seed {number}", "metadata": {"id": f"n{number}"}}
            change = writes.upsert(bank, [record], key=f"request {number}")
        banks.visible("seeds", change.sequence).result()
        print(number, change.sequence, int(change.repeated), flush=True)
"""


@pytest.mark.slow
def test_a_client_that_repeats_after_each_kill_9_writes_each_request_once(bank):
    """Every acknowledged write is there, none is there twice, and what was not acknowledged is asked again."""
    chance, number, repeated = random.Random(1), 0, 0
    for _ in range(8):
        service = subprocess.Popen(
            [sys.executable, "-c", SERVICE, str(bank.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert service.stdout.readline() == "ready\n"
        for request in range(number, number + chance.randrange(2, 25)):
            service.stdin.write(f"{request}\n")
        service.stdin.flush()
        for _ in range(chance.randrange(1, 3)):
            service.stdout.readline()
        time.sleep(chance.random() * 0.05)
        service.send_signal(signal.SIGKILL)
        service.wait()
        with SeedBank.open(bank.path) as again:  # as a client that was only told so much
            done = len(again) - 15
            assert again.sequence == 1 + done
            for request in range(done + 1):  # the answers that were lost, and one more
                record = {"text": f"common seed {request}", "metadata": {"id": f"n{request}"}}
                change = writes.upsert(again, [record], key=f"request {request}")
                assert (change.repeated, change.sequence) == (request < done, 2 + request)
                repeated += change.repeated
            number = done + 1
            assert len(again) == 15 + number and again.sequence == 1 + number
        service.stdin.close()
        service.stdout.close()
    assert number > 16 and repeated
