"""Shards of a bank in this process, asked as those in other processes are: all that is said goes through pickle."""

import pickle

from ecom_rag.seeds.sharded.bank import ShardedBank, shards_of


class Here:
    """See ``files.parts.Held``."""

    def __init__(self, parts):
        self.parts = [pickle.loads(pickle.dumps(part)).open() for part in parts]

    def ask(self, name, *arguments):
        questions = [pickle.loads(pickle.dumps((name, arguments))) for _ in self.parts]
        answers = [getattr(part, name)(*own) for part, (name, own) in zip(self.parts, questions, strict=True)]
        return pickle.loads(pickle.dumps(answers))


def sharded(bank, count):
    return ShardedBank(bank, shards_of(bank, bank.routes, count, Here))
