"""Works for workers elsewhere: what they do to a block, without any model."""

import contextlib
import gc
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ecom_rag.errors import BankError, EmbeddingError, UsageError


@dataclass(frozen=True)
class Marking:
    """Adds to each record what became of it; some texts end their process or raise, some take long."""

    gpus: int = 0
    folder: str = ""  # where "dies once" leaves a mark

    def start(self):
        return self.process

    def process(self, block):
        return [self._done(record) for record in block], {"records": len(block)}

    def _done(self, record):
        text = record["text"]
        if text == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "dies once" and not (mark := Path(self.folder) / "died").exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "raises":
            raise EmbeddingError("text 7 gave NaN")
        if text == "collects how often":
            return {**record, "done": gc.get_threshold()}
        if text == "is slow":
            time.sleep(0.5)
        return {**record, "done": text.upper()}


@dataclass(frozen=True)
class Refusing:
    """Cannot be made ready."""

    gpus: int = 0

    def start(self):
        raise UsageError("precision fp16 needs a GPU")


@dataclass(frozen=True)
class DyingEarly:
    """Ends its process while it is made ready: always, or for the first few processes."""

    gpus: int = 0
    folder: str = ""  # where each process that ends leaves a mark
    processes: int = 0

    def start(self):
        for number in range(self.processes):
            with contextlib.suppress(FileExistsError):
                (Path(self.folder) / f"ended {number}").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        if not self.folder:
            os.kill(os.getpid(), signal.SIGKILL)
        return Marking().process


@dataclass(frozen=True)
class Counting:
    """A part, and what opens it: adds its number; may raise, or end its process."""

    folder: str  # where each opening leaves a mark; none: it cannot be opened
    number: int

    def open(self):
        if not self.folder:
            raise BankError("no folder")
        (Path(self.folder) / f"opened {self.number} {os.getpid()}").touch()
        return self

    def add(self, value):
        return value + self.number

    def add_or_die_once(self, value):
        if self.number == 1 and not (mark := Path(self.folder) / "died").exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.add(value)

    def raise_in(self, number):
        if number == self.number:
            raise BankError(f"shard {number} raises")

    def die_in(self, number):
        if number == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
