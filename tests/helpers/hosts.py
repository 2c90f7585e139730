"""Hosts of their own on this machine: Linux network namespaces with addresses, joined by a bridge.

Each has its own loopback, /dev/shm and /tmp/ray, as machines with a shared file system have.
"""

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

_MOUNTS = "mount -t tmpfs tmpfs /dev/shm && mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray"


def missing() -> str:
    """Why there can be no hosts here; empty where there can be."""
    if not all(map(shutil.which, ("ip", "nsenter", "mount"))):
        return "the programs ip, nsenter and mount are needed"
    if os.geteuid():
        return "network namespaces need root"
    name = f"try{os.getpid()}"
    steps = [["add", name], ["exec", name, "sh", "-c", _MOUNTS], ["del", name]]
    made = [subprocess.run(["ip", "netns", *step], capture_output=True, text=True, check=False) for step in steps]
    return next((f"no network namespaces: {one.stderr.strip()}" for one in made if one.returncode), "")


class Hosts:
    """Hosts 1 to ``count`` with the addresses ``10.213.47.N``.

    Processes of a host are children of this one; ``close`` ends them.
    """

    def __init__(self, count: int) -> None:
        self._name = f"er{os.getpid() % 100000}"  # an interface's name has at most 15 letters
        self._count = count
        self._main: dict[int, subprocess.Popen[bytes]] = {}
        self._others: list[subprocess.Popen[bytes]] = []
        _ip("link", "add", self._name, "type", "bridge")
        _ip("link", "set", self._name, "up")
        for number in range(1, count + 1):
            space, outer = self._space(number), self._outer(number)
            _ip("netns", "add", space)
            _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", outer, "master", self._name, "up")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "route", "add", "default", "dev", "eth0")  # by it programs find their own address

    def address(self, number: int) -> str:
        """Of a host."""
        return f"10.213.47.{number}"

    def boot(self, number: int, command: list[str], **options) -> None:
        """Start a host with its main process; one that ran is ended first."""
        self.halt(number)
        inside = ["sh", "-c", f'{_MOUNTS} && exec "$@"', "sh", *command]
        words = ["ip", "netns", "exec", self._space(number), *inside]
        self._main[number] = subprocess.Popen(words, start_new_session=True, **options)

    def listens(self, number: int, port: int) -> bool:
        """Whether a process of a host takes connections at a port."""
        found = ""
        for kind in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                found += Path(f"/proc/{self._main[number].pid}/net/{kind}").read_text()
        return re.search(rf":{port:04X} [0-9A-F]+:0000 0A", found) is not None

    def start(self, number: int, command: list[str], **options) -> subprocess.Popen[bytes]:
        """Start a process on a host that was booted."""
        words = ["nsenter", "--net", "--mount", "--target", str(self._main[number].pid), "--", *command]
        self._others.append(subprocess.Popen(words, start_new_session=True, **options))
        return self._others[-1]

    def connect(self, number: int, connected: bool) -> None:
        """Cut a host off from the others, or let it come back."""
        _ip("link", "set", self._outer(number), "up" if connected else "down")

    def processes(self, number: int) -> list[int]:
        """Ids of the processes on a host."""
        found = _ip("netns", "pids", self._space(number))
        return [int(line) for line in found.split()]

    def halt(self, number: int) -> None:
        """End all processes of a host."""
        while left := self.processes(number):
            subprocess.run(["kill", "-9", *map(str, left)], capture_output=True, check=False)
            for one in [*self._main.values(), *self._others]:
                one.poll()

    def close(self) -> None:
        """End the hosts."""
        for number in range(1, self._count + 1):
            self.halt(number)
            _ip("netns", "del", self._space(number))
        _ip("link", "del", self._name)

    def _space(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _outer(self, number: int) -> str:
        return f"{self._name}v{number}"


def command_of(process: int) -> str:
    """The words of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout
