"""Filters over metadata: ``tree`` is one and what it means, ``parse`` reads, ``unmet`` explains.

``sql``, ``postgres`` and ``milvus`` compile them for the stores.
"""
