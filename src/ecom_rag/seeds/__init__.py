"""Where seeds live, searched in one way: ``memory`` (records and their indexes) and ``bank`` (on disk, live)."""
