"""Banks copied from disk into PostgreSQL and back: the same documents, vectors and results, also after a kill."""

import pytest

from ecom_rag.errors import BankError, ResumeError, UsageError
from ecom_rag.seeds import migrating, opening
from ecom_rag.seeds.bank import BankSettings, SeedBank, build
from ecom_rag.seeds.migrating import migrate
from ecom_rag.seeds.opening import open_bank, open_remote
from helpers.equal_banks import ROUTES, Encoder, assert_equal
from helpers.small_banks import Hashing, seed

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path):
    """A bank on disk with removed rows."""
    path = tmp_path / "source"
    chosen = BankSettings(routes=ROUTES, index_keys=("label",), label_key="label")
    build(path, [seed(n, price=n % 7) for n in range(90)], chosen, encoder=Encoder())
    with SeedBank.open(path, encoder=Encoder()) as bank:
        bank.delete([f"s{n}" for n in range(0, 30, 3)])
        bank.upsert([seed(n, new=True) for n in range(5)])
    return str(path)


def test_there_and_back_again(source, postgres_url, tmp_path):
    url, back = postgres_url(), str(tmp_path / "back")
    there = migrate(source, url)
    again = migrate(url, back)
    assert there.documents == again.documents == 82 and there.resumed == 0 and there.sequence == 3
    with SeedBank.open(source) as first, open_remote(url) as middle, SeedBank.open(back) as last:
        assert first.settings == middle.settings == last.settings
        assert first.model == middle.model == last.model
        for filter, own in ((None, False), ("price < 3", True)):
            assert_equal(first, middle, filter=filter, own=own)
            assert_equal(last, middle, filter=filter, own=own)
        last.use(Encoder())
        assert last.upsert([seed(200)]).added == 1


def test_some_of_the_routes(source, postgres_url, tmp_path):
    url = postgres_url()
    migrate(source, url, routes=["bm25"])
    with open_remote(url) as bank:
        assert bank.routes == ("bm25",) and bank.model is None and len(bank) == 82
    with pytest.raises(UsageError, match="has no route multivector; it has bm25, dense, sparse, variant"):
        migrate(source, postgres_url(), routes=["bm25", "multivector"])


@pytest.mark.parametrize("to_server", [True, False])
def test_an_interrupted_copy_is_continued(source, postgres_url, tmp_path, monkeypatch, to_server):
    monkeypatch.setattr(migrating, "_BLOCK", 10)
    target = postgres_url() if to_server else str(tmp_path / "target")
    copied = []

    def fail(count):
        copied.append(count)
        if len(copied) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate(source, target, progress=fail)
    with pytest.raises(BankError, match=r"no such"):
        open_bank(target)
    done = migrate(source, target, resume=True)
    assert (done.documents, done.resumed) == (82, 40)
    with open_bank(source) as first, open_bank(target) as other:
        assert_equal(first, other)
    with pytest.raises(BankError, match="already exists"):
        migrate(source, target)


def test_a_source_that_has_changed_is_not_continued_with(source, postgres_url, monkeypatch):
    monkeypatch.setattr(migrating, "_BLOCK", 10)
    target = postgres_url()

    def change(count):
        with SeedBank.open(source, encoder=Encoder()) as bank:
            bank.delete(["s50"])

    with pytest.raises(BankError, match="was changed while it was copied; copy it again"):
        migrate(source, target, progress=change)
    with pytest.raises(
        ResumeError, match=r"something else than a copy of .* at sequence 4; copy again without `resume`"
    ):
        migrate(source, target, resume=True)
    done = migrate(source, target)
    assert done.documents == 81 and "was discarded" in done.notes[0]


def test_a_build_and_a_copy_do_not_continue_each_other(source, postgres_url, monkeypatch):
    def fail(count):
        raise KeyboardInterrupt

    for target in (postgres_url(), f"{source}-other"):
        with pytest.raises(KeyboardInterrupt):
            migrate(source, target, progress=fail)
        chosen = BankSettings(routes=ROUTES, index_keys=("label",))
        with pytest.raises(ResumeError, match="was a copy of a bank; build again without `resume`"):
            opening.build(target, [seed(1)], chosen, encoder=Encoder(), resume=True)
        with pytest.raises(KeyboardInterrupt):
            opening.build(target, [seed(1)], chosen, encoder=Encoder(), progress=fail)
        with pytest.raises(ResumeError, match="something else than a copy"):
            migrate(source, target, resume=True)


def test_an_empty_source_leaves_nothing(tmp_path, postgres_url):
    from ecom_rag.seeds.bank import create

    create(tmp_path / "empty", encoder=Hashing()).close()
    url = postgres_url()
    with pytest.raises(UsageError, match="holds no seeds, so there is nothing to copy"):
        migrate(str(tmp_path / "empty"), url)
    with pytest.raises(UsageError, match="holds no seeds"):
        migrate(str(tmp_path / "empty"), url)
