"""A few random command lines over random files; ``fuzzing.py`` says what must hold of each, and runs many by hand."""

import pytest

from fuzzing import World, commands, make_models

pytestmark = pytest.mark.slow

ROUNDS = 150
_AT_ONCE = 25


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("fuzzing"), make_models)


@pytest.mark.parametrize("first", range(0, ROUNDS, _AT_ONCE))
def test_random_command_lines(world, first):
    for number in range(first, first + _AT_ONCE):
        done = world.round(number)
        assert not done.complaint, f"round {number}: {done.complaint}: {done.command}\n{done.err}"


def test_the_rounds_reach_all_commands(world):
    """Fuzzing that never gets past the options would hold of anything."""
    ended: dict[str, set[int]] = {}
    for number in range(1000, 1000 + ROUNDS):
        done = world.round(number)
        name = next((name for name in commands() if done.command[: name.count(" ") + 1] == name.split()), "")
        ended.setdefault(name, set()).add(done.code)
        if len(ended) >= 10 and sum(0 in codes for codes in ended.values()) >= 5:
            return  # further rounds only add to both counts
    raise AssertionError(ended)
