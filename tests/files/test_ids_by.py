"""Ids of many metadata are those of one."""

import pytest

from ecom_rag.files.identity import ids_by, known_id


@pytest.mark.parametrize("key", ["id", " id ", "of.id", '"a.b"'])
@pytest.mark.parametrize("value", ["7", "", " x ", 7, 7.0, 7.5, True, None, [1], 2**70])
def test_ids_of_many_are_those_of_one(key, value):
    for metadata in ({"id": value}, {"of": {"id": value}}, {"a.b": value}, {}, None, "id"):
        assert ids_by(key)(metadata) == known_id(metadata, key)
