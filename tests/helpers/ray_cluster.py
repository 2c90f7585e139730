"""A Ray cluster of this machine for a module of tests."""

import contextlib
import os
from pathlib import Path

import psutil
import pytest

TESTS = Path(__file__).parent.parent


@contextlib.contextmanager
def running(cpus):
    """A cluster of our own; its processes find the tests' helpers."""
    paths = [str(TESTS), str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.delenv("RAY_ADDRESS", raising=False)
        import ray

        ray.init(
            address="local",
            num_cpus=cpus,
            object_store_memory=100 << 20,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
        try:
            yield
        finally:
            ray.shutdown()


def actors(processes, name="ray::_Actor"):
    """Those processes that are actors of a kind."""
    found = []
    for one in processes:
        with contextlib.suppress(psutil.Error):
            found += [one] if name in " ".join(one.cmdline()) else []
    return found
