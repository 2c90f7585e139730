"""``python -m ecom_rag`` is ``ecom-rag``: the command line, quiet too when it is interrupted as it starts or ends."""

import gc
import os
import signal
import sys
from typing import Any

_INTERRUPTED = 130


def main() -> None:
    """Entry point of the process; ``cli.main`` does the work and tells of errors."""
    code: Any = _INTERRUPTED
    try:
        sys.unraisablehook = _quiet
        from ecom_rag.cli import main as command

        command()
    except KeyboardInterrupt:  # while the modules are read
        pass
    except SystemExit as ended:
        code = ended.code
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))  # from here on there is nothing left to clean up
    gc.freeze()  # all is freed with the process: Python's last look for cycles takes up to a second after torch
    sys.exit(code)


def _quiet(unraisable: Any) -> None:
    """Errors in destructors, which nobody can mend: as of a temporary folder on a full disk."""
    if os.environ.get("ECOM_RAG_TRACEBACK") == "1":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    main()
