"""The fleet under soak: the repository's own instances.yaml on free ports, with two counters beside it, in a temporary
directory and with a registry of its own. Knows the `laneway` command and nothing of what is inside of it."""

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SERVERS = ["chat_main", "chat_api", "chat_websocket"]
COUNTERS = ["steady", "restless"]
LINES_PER_SECOND = {"steady": 1000, "restless": 200}
PATIENCE = 10  # seconds


@dataclass(frozen=True)
class Said:
    """What a command left."""

    code: int
    out: str
    err: str


class Fleet:
    """Made with its files; started by `up`."""

    def __init__(self, laneway: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="laneway-soak-"))
        self.state = self.directory / "var"
        self.ports = dict(zip(SERVERS, free_ports(len(SERVERS)), strict=True))
        self._overlay = self.directory / "soak.yaml"
        self._overlay.write_text(json.dumps(self._settings(), indent=2))  # JSON is YAML
        self._laneway = laneway
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "USER")}
        self._environment = kept | {
            "HOME": str(self.directory / "home"),
            "XDG_STATE_HOME": str(self.directory / "registry"),
        }

    def _settings(self) -> dict[str, object]:
        counter = {
            "framework": "generic",
            "working_dir": str(self.directory),
            "pre_start": [],
            "healthcheck": {"disable": True},
        }
        program = [sys.executable, str(Path(__file__).with_name("counter.py")), "{state}/runs"]
        counters = {name: counter | {"command": [*program, str(rate)]} for name, rate in LINES_PER_SECOND.items()}
        return {
            "state_dir": str(self.state),
            # Small files: many rotations. Enough of them that the audit is never behind.
            "defaults": {"logging": {"max_size": "64k", "max_files": 500}},
            "instances": {name: {"port": port} for name, port in self.ports.items()} | counters,
        }

    def run(self, *arguments: str, timeout: float = 60) -> Said:
        """Runs `laneway` to its end; a command that takes longer than `timeout` seconds is killed and has code -9."""
        files = ["-f", str(REPOSITORY / "instances.yaml"), "-f", str(self._overlay)]
        command = [str(self._laneway), *files, *arguments]
        process = subprocess.Popen(
            command,
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is for the soak, which then cleans up
        )
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        return Said(process.returncode, out, err)

    def status(self, timeout: float = 10) -> tuple[Said, dict | None]:
        """What `laneway status` says; no status if nobody answers."""
        said = self.run("status", "--json", timeout=timeout)
        try:
            return said, json.loads(said.out)
        except ValueError:
            return said, None

    def is_unlocked(self) -> bool:
        """Whether neither keeper nor supervisor lives: the lock is free only then."""
        with (self.state / ".run" / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def processes(self) -> dict[int, str]:
        """Everything that runs in the fleet's directory or was started from it: pid and command."""
        mark, found = str(self.directory).encode(), {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                if mark in (entry / "environ").read_bytes():
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = command.decode(errors="replace")
            except OSError:
                continue  # it has ended, or is somebody else's
        return found

    def destroy(self) -> dict[int, str]:
        """Ends everything, by force if need be; what `down` left behind."""
        self.run("down", timeout=60)
        left = self.processes()
        end = time.monotonic() + PATIENCE
        while (remaining := self.processes()) and time.monotonic() < end:
            for pid in remaining:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        return left


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, beneath those that the system gives to clients."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports += [port] if port not in ports else []
    return ports
