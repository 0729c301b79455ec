"""A supervisor with its children: what every one of them has, whoever made it. The drivers are in `subjects.py`
and `peers.py`; what is asked of a fleet is in `measures.py`."""

import contextlib
import os
import random
import select
import shlex
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from processes import Ended, Impossible, descendants, end_all, program_of, reap, run, start

START = 120.0  # seconds for all children to be there
STOP = 30.0  # seconds for all children to be gone
BATCH = 0.002  # seconds: see Events.wait


@dataclass(frozen=True)
class Tools:
    """What a bench has made beforehand: the C programs, the binary of laneway, and where fleets live."""

    directory: Path
    laneway: Path

    @property
    def child(self) -> Path:
        """The program that every supervisor supervises."""
        return self.directory / "child"


@dataclass(frozen=True)
class Flood:
    """What every child prints once it is told to go."""

    lines: int
    line_bytes: int
    lines_per_write: int

    @property
    def bytes(self) -> int:
        """All of them."""
        return self.lines * self.line_bytes


@dataclass(frozen=True)
class Wanted:
    """What a measurement wants of a fleet."""

    count: int
    check: int = 0  # milliseconds from one HTTP check of a child to the next; 0: none
    timeout: int = 2000  # milliseconds for the answer to a check
    retries: int = 3  # checks without an answer until a child counts as hung
    flood: Flood | None = None


@dataclass(frozen=True)
class Told:
    """What a child said of itself."""

    pid: int
    at: int  # nanoseconds of the monotonic clock


class Events:
    """What the children say, through a FIFO: the last word of each kind and child."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""
        self.of: dict[str, dict[str, Told]] = {}
        self.clear()

    def clear(self) -> None:
        """Forgets all of it."""
        self._read()
        self.of = {"up": {}, "flood": {}, "done": {}, "failed": {}}

    def close(self) -> None:
        """Who speaks now is not heard."""
        os.close(self._fd)

    def wait(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Returns when it is done; raises `Impossible` when a child failed or that took too long."""
        end = time.monotonic() + seconds
        while True:
            reap()
            self._read()
            if self.of["failed"]:
                raise Impossible(f"{what}: a child could not listen or print: {sorted(self.of['failed'])}")
            if done():
                return
            if time.monotonic() > end:
                raise Impossible(f"{what}: not within {seconds:.0f} s")
            # Children say when they began, so it does not matter when that is read: many words at a time take less
            # of the processor that is measured.
            time.sleep(BATCH)
            select.select([self._fd], [], [], 0.05)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 1 << 16):
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    name, what, pid, at = line.decode().split()
                    self.of[what][name] = Told(int(pid), int(at))


class Fleet:
    """A supervisor and its children. A driver says how it is configured and what its commands are."""

    name = ""
    settings = ""  # those that matter for a comparison
    largest = 100  # children that it is measured with at most
    can: frozenset[str] = frozenset({"start", "crash", "mass", "idle", "status", "stop", "log"})
    stop_waits = True  # whether its stop command returns only when the children are gone

    def __init__(self, tools: Tools, wanted: Wanted) -> None:
        self.tools, self.wanted = tools, wanted
        self.root = tools.directory / "fleet"
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self.output = self.root / "output"
        self.output.touch()
        self.names = [f"w{index:04}" for index in range(wanted.count)]
        self.port = free_ports(wanted.count)
        self.events = Events(self.root / "events")
        if wanted.flood:
            os.mkfifo(self.root / "go")
        self.configure()

    # What a driver says.

    @classmethod
    def version(cls) -> str:
        """What is measured."""
        raise NotImplementedError

    def configure(self) -> None:
        """Writes what the supervisor reads."""

    def up_command(self) -> list[str]:
        """Starts supervisor and children; may stay or go to the background."""
        raise NotImplementedError

    def status_command(self) -> list[str]:
        """Says of every child how it is."""
        raise NotImplementedError

    def stop_command(self) -> list[str]:
        """Stops every child."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Of its commands."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.root), "LANG": "C.UTF-8"}

    def logs(self, name: str) -> list[Path]:
        """The files of a child's output, oldest first."""
        raise NotImplementedError

    def end(self) -> None:
        """Ends the supervisor in its own way, where that leaves less behind than a kill."""

    # What every one has.

    def child_environment(self, name: str) -> dict[str, str]:
        """What a child needs to know."""
        return {"INSTANCE_NAME": name, "PORT": str(self.port + self.names.index(name))} | self.shared_environment()

    def shared_environment(self) -> dict[str, str]:
        """The part of it that is the same for all."""
        shared = {"BENCH_EVENTS": str(self.events.path)}
        if flood := self.wanted.flood:
            shared["BENCH_FLOOD"] = f"{flood.lines} {flood.line_bytes} {flood.lines_per_write}"
            shared["BENCH_GO"] = str(self.root / "go")
        return shared

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """A file beneath the fleet's directory."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def script(self, name: str, redirect: str = "") -> str:
        """A shell script that becomes a child."""
        variables = shlex.join(f"{key}={value}" for key, value in self.child_environment(name).items())
        return f"#!/bin/sh\nexec env {variables} {self.tools.child} {redirect}\n"

    def up(self) -> float:
        """Starts it; milliseconds from there to the first instruction of the last child."""
        begun = time.monotonic_ns()
        start(self.up_command(), self.environment(), self.output)
        self.events.wait(lambda: len(self.births) == self.wanted.count, START, "start of all children")
        return (max(told.at for told in self.births.values()) - begun) / 1e6

    def down(self) -> None:
        """Ends supervisor and children, and forgets what these said."""
        try:
            self.end()
        finally:
            end_all(self.tools.child)
            self.events.clear()

    def destroy(self) -> None:
        """Ends all of it and removes what it left."""
        try:
            self.down()
        finally:
            self.events.close()
            shutil.rmtree(self.root)

    @property
    def births(self) -> dict[str, Told]:
        """The first instruction of the present process of each child."""
        return self.events.of["up"]

    def own_processes(self) -> list[int]:
        """The supervisor's: everything but the children."""
        return [pid for pid in descendants() if program_of(pid) not in ("", str(self.tools.child))]

    def run(self, command: list[str], good: tuple[int, ...] = (0,)) -> Ended:
        """Runs one of its commands, which has to succeed."""
        ended = run(command, self.environment(), self.output)
        if ended.code not in good:
            said = self.output.read_text(errors="replace")[-600:].strip()
            raise Impossible(f"`{' '.join(command)}` failed with {ended.code}: {said}")
        return ended


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on, beneath those that the system gives to clients."""
    for _ in range(200):
        first = random.randrange(10_000, 32_000 - count)
        with contextlib.suppress(OSError):
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
            return first
    raise Impossible(f"no {count} free ports in a row between 10000 and 32000")
