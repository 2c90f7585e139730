"""Addresses of banks: what they name, and what a message shows of them."""

import pytest

from ecom_rag.errors import UsageError
from ecom_rag.seeds.address import Address, folder_of, is_address, place_of, shown


@pytest.mark.parametrize(
    ("url", "server", "name", "told"),
    [
        ("postgresql://h/d", "postgresql://h/d", "seeds", "postgresql://h/d?bank=seeds"),
        ("postgres://u@h:5/d?bank=B-1", "postgres://u@h:5/d", "B-1", "postgresql://u@h:5/d?bank=B-1"),
        ("postgresql://u:p%40w@h/d?sslmode=require&bank=b", "postgresql://u:p%40w@h/d?sslmode=require", "b", "postgresql://u@h/d?bank=b"),
        ("postgresql:///d?host=%2Frun&bank=b", "postgresql:///d?host=%2Frun", "b", "postgresql:///d?bank=b"),
    ],
)  # fmt: skip
def test_what_a_url_says(url, server, name, told):
    found = Address.of(url)
    assert (found.server, found.name, str(found)) == (server, name, told)
    assert is_address(url) and shown(url) == place_of(url) == told
    assert found.unfinished().name == f"{name}.partial" and found.unfinished().server == server


@pytest.mark.parametrize(
    ("url", "server", "name", "told"),
    [
        ("milvus://h", "milvus://h", "seeds", "milvus://h?bank=seeds"),
        ("milvus://u:pw@h:19530/d?bank=B_1&secure=true", "milvus://u:pw@h:19530/d?secure=true", "B_1", "milvus://u@h:19530/d?bank=B_1"),
    ],
)  # fmt: skip
def test_what_a_url_of_milvus_says(url, server, name, told):
    found = Address.of(url)
    assert (found.kind, found.server, found.name, str(found)) == ("Milvus", server, name, told)
    assert is_address(url) and shown(url) == place_of(url) == told


@pytest.mark.parametrize("name", ["", "a-b", "1a", "x" * 49, "a_ecomrag_1", "ü"])
def test_names_that_do_not_fit_milvus(name):
    with pytest.raises(UsageError, match="a letter, then up to 47 letters"):
        Address.of(f"milvus://h/d?bank={name}")


@pytest.mark.parametrize("name", ["", "a b", 'a"; DROP', "x" * 49, "a.partial", "-a", "ü"])
def test_names_that_do_not_fit(name):
    with pytest.raises(UsageError, match="up to 48 letters, digits"):
        Address.of(f"postgresql://h/d?bank={name}")


def test_an_address_that_is_none_does_not_show_its_password():
    with pytest.raises(UsageError) as caught:
        Address.of("postgresql://u:secret@h:port/d")
    assert "secret" not in str(caught.value)


def test_folders_are_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_address("bank") and shown("bank") == folder_of("bank") == "bank"
    assert place_of("bank") == str(tmp_path / "bank")
    with pytest.raises(UsageError, match=r"postgresql://u@h/d.bank=b: is a bank in PostgreSQL") as caught:
        folder_of("postgresql://u:secret@h/d?bank=b")
    assert "secret" not in str(caught.value)
