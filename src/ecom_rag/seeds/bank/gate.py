"""Many searches or one change of the indexes at a time; a waiting change goes before new searches."""

import threading


class Gate:
    """A lock that is held by many readers or by one writer."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writing = False
        self._waiting = 0

    def enter(self) -> None:
        """Become a reader."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._waiting)
            self._readers += 1

    def leave(self) -> None:
        """Stop being a reader."""
        with self._changed:
            self._readers -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Become the writer, once all readers have left."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._writing and not self._readers)
            finally:
                self._waiting -= 1
            self._writing = True

    def reopen_as_reader(self) -> None:
        """From writer to reader, with no other writer between."""
        with self._changed:
            self._writing = False
            self._readers += 1
            self._changed.notify_all()
