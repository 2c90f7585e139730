"""The map of docs/architecture.md, held against the imports; and limits that only ever go down."""

import re
from pathlib import Path

import structure

MAP = Path(__file__).parent.parent / "docs" / "architecture.md"
HELPERS = {"arguments", "environment", "idle", "values", "_version"}  # of all rooms
KNOWN_CYCLES: list[list[str]] = []
LONG_FILES, LONG_FUNCTIONS, LONGEST_COMMAND = 1, 2, 155


def rooms() -> list[str]:
    """The rooms as the documentation draws them, from the top."""
    [drawn] = re.findall(r"```text\n(.*?)```", MAP.read_text(encoding="utf-8"), re.S)
    return [line.split()[0] for line in drawn.splitlines()]


def test_the_map_names_every_room():
    outside = {"__main__", structure.PACKAGE, *HELPERS}
    assert set(rooms()) == {structure.layer(name) for name in structure.modules()} - outside


def test_no_import_leads_upwards():
    place = {room: number for number, room in enumerate(rooms())}
    wrong = [
        example
        for room, below in structure.layer_arrows().items()
        for other, examples in below.items()
        for example in examples
        if room in place and other in place and place[room] > place[other]
    ]
    assert wrong == []


def test_no_room_imports_the_package_as_a_whole():
    assert [name for name, below in structure.arrows().items() if structure.PACKAGE in below] == []


def test_no_new_cycle():
    assert structure.cycles(structure.arrows()) == KNOWN_CYCLES


def test_files_and_functions_do_not_grow():
    long_files = [module.name for module in structure.modules().values() if module.lines > 300]
    assert len(long_files) <= LONG_FILES, long_files
    functions = structure.functions()
    long_functions = [one.place for one in functions if one.lines > 40 and not one.place.startswith("cli.")]
    assert len(long_functions) <= LONG_FUNCTIONS, long_functions
    assert max(one.lines for one in functions) <= LONGEST_COMMAND  # a command is as long as it has options
    assert structure.skips() == 0


def test_every_place_of_the_architecture_is_there():
    for page in (MAP, MAP.with_suffix(".zh-CN.md")):
        text = page.read_text(encoding="utf-8")
        paths = set(re.findall(r"`((?:\w+/)*\w+(?:\.py|/))`", text))
        assert len(paths) > 25
        missing = [
            path for path in paths if not any((base / path).exists() for base in (structure.SOURCE, MAP.parent.parent))
        ]
        assert missing == []
        for path, name in re.findall(r"`((?:\w+/)*\w+\.py)`\s?[:：]\s?`(\w+)`", text):
            if (structure.SOURCE / path).exists():
                assert name in (structure.SOURCE / path).read_text(encoding="utf-8"), (path, name)
