"""A bank on disk in shards: each process holds a range of the rows, and what they find is put together.

The result is that of the whole bank to the last bit. A score depends on its query, its row and, over texts, on
statistics of all rows; these are added up over the shards and sent with the queries. ``shard`` is what a process holds,
``bank`` what a search sees.
"""
