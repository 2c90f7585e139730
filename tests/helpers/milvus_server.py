"""Milvus servers for tests, each a process of its own with its data in a temporary folder: Milvus Lite, and Milvus."""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Lite:
    """Milvus Lite, of the package `milvus-lite`; ``url`` names a bank on it.

    Raises:
        OSError: It cannot be run here.
    """

    routes = ("bm25", "dense", "sparse")

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ecom-rag-milvus-"))
        self.port = free_port()
        self._process = None
        self.start()

    def url(self, bank):
        return f"milvus://127.0.0.1:{self.port}/default?bank={bank}"

    def start(self):
        """Start it, and wait until it answers."""
        self._start(["milvus_lite.cmdline", "server", "--host", "127.0.0.1", "--port", str(self.port)])

    def _start(self, command):
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", RUN, *command, "--data-dir", str(self.folder / "data")],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        self._wait()

    def _wait(self):
        from pymilvus import MilvusClient, MilvusException

        for _ in range(300):
            if self._process.poll() is not None:
                break
            with contextlib.suppress(MilvusException):
                with contextlib.closing(MilvusClient(uri=f"http://127.0.0.1:{self.port}", timeout=1)) as client:
                    client.list_collections()
                return
            time.sleep(0.2)
        self.kill()
        logs = "".join(
            path.read_text("utf-8", "replace")[-1000:] for path in self.folder.glob("log*") if path.is_file()
        )
        shutil.rmtree(self.folder, ignore_errors=True)
        raise OSError(f"the server does not start: {logs}")

    def kill(self):
        """End it by SIGKILL, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def remove(self):
        """Stop it, and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Standalone(Lite):
    """The server of the package `milvus` (pip install --no-deps milvus==2.3.5); one runs on a machine at a time.

    Raises:
        ImportError: The package is not installed.
        OSError: It cannot be run here.
    """

    routes = ("dense",)

    def __init__(self):
        from milvus import MilvusServer  # noqa: F401, since a folder of that name can be imported too

        super().__init__()

    def start(self):
        from milvus import MilvusServer, MilvusServerConfig

        config = MilvusServerConfig(data_dir=str(self.folder), proxy_port=self.port)
        self._server = MilvusServer(config, wait_for_started=False)
        self._server.start()
        self._process = self._server.server_proc
        self._wait()


RUN = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__')"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
