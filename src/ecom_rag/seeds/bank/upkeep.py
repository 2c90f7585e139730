"""When a bank that was changed is compacted, or its indexes are saved: work in proportion to the changes."""

from ecom_rag.errors import EcomRagError
from ecom_rag.seeds.bank import table
from ecom_rag.seeds.bank.derived import Pause
from ecom_rag.seeds.bank.live import LiveIndexes
from ecom_rag.seeds.bank.store import Store

MANY = 20_000  # rows that are worth a compaction or new saved indexes, where they are also
_SHARE = 0.25  # this share of all rows


def look_after(store: Store, live: LiveIndexes, *, pause: Pause | None = None) -> list[str]:
    """Compact a bank or save its indexes where that is due; a note where that failed: the change is on the disk."""
    try:
        with store.reading() as (_, state):
            pass
        many = max(MANY, _SHARE * (state.live + state.removed))
        if state.removed > many:
            compact(store, live, pause=pause)
        elif live.rows_unsaved(state) > many:
            live.save(pause=pause)
    except (EcomRagError, OSError) as error:
        return [
            f"the change is written, but compacting or saving the indexes failed ({error}); it is tried again"
            " after the next change"
        ]
    return []


def compact(store: Store, live: LiveIndexes, *, pause: Pause | None = None) -> int:
    """Drop the removed rows for good, give their space back and save the indexes; returns how many rows there were."""
    with store.writing() as (db, state):
        gone = table.purge(db, state) if state.removed else 0
    if gone:
        store.give_space_back()
        live.save(pause=pause)
    return gone
