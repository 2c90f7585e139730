"""Models, banks and policies behind batchers: what the service computes, without any HTTP.

``batching`` gathers the units of waiting requests into batches for one thread; ``models`` encodes and reranks,
``search`` recalls, ``decisions`` decides. Everything is called from one event loop; the work is done in one model
thread, one search thread and one thread that writes.
"""
