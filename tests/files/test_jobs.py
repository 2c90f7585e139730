"""What stands on the disk after kills at the worst moments."""

import shutil

import pytest

from ecom_rag.errors import ResumeError
from ecom_rag.files import jobs


def begun(output):
    """A run that was killed after its first block."""
    run = jobs.open_output(str(output), settings={"a": 1})
    run.write_block([{"q": 1}], b'{"r":1}\n', [], {})
    run._close()
    run._unlock()
    return output.with_name(f"{output.name}.partial")


def finish(output):
    with jobs.open_output(str(output), settings={"a": 1}, resume=True) as run:
        if not run.records:
            run.write_block([{"q": 1}], b'{"r":1}\n', [], {})
        run.write_block([{"q": 2}], b'{"r":2}\n', [], {})
        run.finish()
    return output.read_bytes()


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_kill_while_an_old_run_is_cleared_away_leaves_nothing_to_continue(tmp_path, monkeypatch, left):
    """The clearing stops after so many files; then the same command with --resume."""
    output = tmp_path / "o.jsonl"
    begun(output)
    removed = []

    class Killed(BaseException):
        pass

    def unlink(path, missing_ok=False):
        if len(removed) == left:
            raise Killed
        removed.append(path.name)
        path.rename(tmp_path / f"gone{len(removed)}")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.unlink", unlink)
        with pytest.raises(Killed):
            jobs.open_output(str(output), settings={"a": 1})
    assert removed[:1] in ([], ["journal.json"])
    assert finish(output) == b'{"r":1}\n{"r":2}\n'


def test_results_that_are_gone_are_not_continued(tmp_path):
    folder = begun(tmp_path / "o.jsonl")
    (folder / "results.jsonl").unlink()
    with pytest.raises(ResumeError, match="holds 0 bytes instead of 8; run again without `resume`"):
        finish(tmp_path / "o.jsonl")


def test_a_run_without_its_settings_is_a_first_run(tmp_path):
    folder = begun(tmp_path / "o.jsonl")
    (folder / "settings.json").unlink()
    assert finish(tmp_path / "o.jsonl") == b'{"r":1}\n{"r":2}\n'
    assert not folder.exists()


def test_a_failed_first_run_keeps_the_lock_until_its_folder_is_gone(tmp_path, monkeypatch):
    run = jobs.open_output(str(tmp_path / "o.jsonl"), settings={})
    held = []
    remove = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda *a, **k: (held.append(not run._lock.closed), remove(*a, **k)))
    with pytest.raises(ValueError), run:
        raise ValueError
    assert held == [True] and not (tmp_path / "o.jsonl.partial").exists()
