"""Filters over metadata: ``tree`` is one and what it means, ``parse`` reads, ``sql`` compiles, ``unmet`` explains."""
