"""Files and what they hold: records, results, formats, keys and ids, digests, caches, and jobs that survive a kill.

Nothing here knows of models or of search.
"""
