"""Where seeds live, searched in one way: ``memory`` (records and their indexes), ``bank`` (on disk, live), and servers.

``remote`` is what banks in servers share, over ``postgres`` and ``milvus``; ``opening`` takes a folder or an address.
"""
