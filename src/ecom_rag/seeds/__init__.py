"""Where seeds live, searched in one way: ``memory`` (records and their indexes), ``bank`` (on disk, live), and servers.

``sharded`` is a bank on disk, of which each process holds a range of the rows. ``remote`` is what banks in servers
share, over ``postgres`` and ``milvus``; ``opening`` takes a folder or an address.
"""
