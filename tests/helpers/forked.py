"""Processes of their own that are forked from one which has imported the libraries: a command costs only its own work.

Each has its own memory, streams and end, as a fresh one has, and SIGKILL ends it as it ends any other; the seconds that
importing torch and transformers takes are spent once.
"""

import json
import subprocess
import sys
from pathlib import Path

_PARENT = """
import atexit, gc, json, os, sys, threading, traceback
import torch, transformers, transformers.models.bert.modeling_bert, numba
import ecom_rag.cli, ecom_rag.pipeline, ecom_rag.models.networks.fused
gc.freeze()
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        for stream, path in enumerate((os.devnull, job["out"], job["err"])):
            os.dup2(os.open(path, os.O_RDONLY if stream == 0 else os.O_WRONLY), stream)
        sys.stdin = open(0, closefd=False)
        sys.argv = ["-c", *job["words"]]
        code = 0
        try:
            exec(job["code"], {"__name__": "__main__"})
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        threading._shutdown()  # what an interpreter does at its end, but for taking all modules apart
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forked:
    """Runs code as ``python -c`` does, one process after another.

    Args:
        folder: For the streams of the processes.
    """

    def __init__(self, folder: Path) -> None:
        self._out, self._err = folder / "out", folder / "err"
        command = [sys.executable, "-c", _PARENT]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, code: str, *words: object) -> subprocess.CompletedProcess[bytes]:
        """Run code with ``words`` for its arguments, in this process's present folder.

        Returns:
            Exit code, negative for a signal, and what was written to the two streams.
        """
        for path in (self._out, self._err):
            path.write_bytes(b"")
        told = [str(word) for word in words]
        job = {"code": f"import os; os.chdir({str(Path.cwd())!r})\n{code}", "words": told}
        self._parent.stdin.write(json.dumps(job | {"out": str(self._out), "err": str(self._err)}) + "\n")
        self._parent.stdin.flush()
        ended = int(self._parent.stdout.readline())
        return subprocess.CompletedProcess(told, ended, self._out.read_bytes(), self._err.read_bytes())

    def close(self) -> None:
        """End the process that is forked from."""
        self._parent.communicate(timeout=60)
