"""What is measured: each test brings up one fleet of one supervisor, does one thing to it, and says what that took.
Knows fleets, and nothing of how they are driven or what becomes of the figures."""

import contextlib
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fleet import STOP, Fleet, Flood, Tools, Wanted
from processes import Impossible, start, switches_between, usage
from subjects import Laneway

MIB = 1024 * 1024
CHECKS = 5000  # milliseconds from one check to the next, where a fleet is at rest
REPLACED = 60.0  # seconds until a killed or hung child counts as not replaced
WRITTEN = 10.0  # seconds without a new byte after which no more are expected

Samples = dict[str, list[float]]  # by the key of the row


@dataclass(frozen=True)
class Scale:
    """How much of everything: a real run, or a short one that only shows that everything can be measured."""

    settle: float = 2.0  # seconds from the start of a fleet to the first thing that is done to it
    kills: int = 8
    masses: int = 2
    hangs: int = 3
    commands: int = 10
    window: float = 30.0  # seconds at rest
    checked: float = 8.0  # seconds until a fleet with checks is at rest
    large_writes: int = 512 * MIB  # bytes
    small_writes: int = 64 * MIB


SMOKE = Scale(
    settle=0.1,
    kills=2,
    masses=1,
    hangs=1,
    commands=2,
    window=0.5,
    checked=0.5,
    large_writes=20 * MIB,  # more than one file
    small_writes=MIB,
)


@dataclass(frozen=True)
class Row:
    """One figure: of which the median of laneway is held against a goal."""

    key: str
    what: str
    unit: str
    goals: dict[int, float] = field(default_factory=dict)  # by the number of children
    of_floor: bool = False  # the goal is a share of the floor, and more is better


@dataclass(frozen=True)
class Test:
    """A way to measure some rows."""

    name: str
    measure: Callable[[type[Fleet], Tools, int, Scale], Samples]
    counts: tuple[int, ...]  # numbers of children
    rows: tuple[Row, ...]
    rounds: int = 100  # at most
    fixed: bool = False  # whether the counts belong to the test


@contextlib.contextmanager
def brought_up(kind: type[Fleet], tools: Tools, wanted: Wanted, settle: float) -> Iterator[Fleet]:
    """A fleet that runs; ended and removed afterwards."""
    fleet = kind(tools, wanted)
    try:
        fleet.up()
        time.sleep(settle)
        yield fleet
    finally:
        fleet.destroy()


def start_up(kind: type[Fleet], tools: Tools, count: int, scale: Scale) -> Samples:
    """From nothing, and again over what the first start left."""
    fleet = kind(tools, Wanted(count))
    try:
        first = fleet.up()
        time.sleep(scale.settle)
        fleet.down()
        return {"first": [first], "again": [fleet.up()]}
    finally:
        fleet.destroy()


def crash(kind: type[Fleet], tools: Tools, count: int, scale: Scale) -> Samples:
    """One child after the other is killed."""
    took = []
    with brought_up(kind, tools, Wanted(count), scale.settle) as fleet:
        for number in range(scale.kills):
            time.sleep(random.uniform(0.05, 0.25))  # at no particular moment of anybody's rhythm
            took.append(replaced(fleet, [fleet.names[number * 7 % count]], signal.SIGKILL))
    return {"crash": took}


def mass(kind: type[Fleet], tools: Tools, count: int, scale: Scale) -> Samples:
    """Half of the children are killed at one instant, then the other half."""
    took = []
    half = max(1, count // 2)
    with brought_up(kind, tools, Wanted(count), scale.settle) as fleet:
        for number in range(scale.masses):
            names = fleet.names[half:] if number % 2 else fleet.names[:half]
            took.append(replaced(fleet, names, signal.SIGKILL))
            time.sleep(scale.settle)
    return {"mass": took}


def hang(kind: type[Fleet], tools: Tools, count: int, scale: Scale) -> Samples:
    """Children are stopped, so that they take a request and never answer."""
    took = []
    with brought_up(kind, tools, Wanted(count, check=500, timeout=500, retries=1), 0) as fleet:
        for number in range(scale.hangs):
            # All have been healthy by then; and no particular moment between two checks.
            time.sleep(scale.settle + random.uniform(0.4, 0.9))
            took.append(replaced(fleet, [fleet.names[number % count]], signal.SIGSTOP))
    return {"hang": took}


def replaced(fleet: Fleet, names: list[str], number: signal.Signals) -> float:
    """Sends children a signal; milliseconds until the last one's replacement began."""
    pids = [fleet.births[name].pid for name in names]
    begun = time.monotonic_ns()
    for pid in pids:
        os.kill(pid, number)
    fleet.events.wait(lambda: all(fleet.births[name].at > begun for name in names), REPLACED, "replacement")
    return (max(fleet.births[name].at for name in names) - begun) / 1e6


def idle(kind: type[Fleet], tools: Tools, count: int, scale: Scale) -> Samples:
    """Nothing happens but checks."""
    with brought_up(kind, tools, Wanted(count, check=CHECKS), scale.checked) as fleet:
        pids = fleet.own_processes()
        before = usage(pids)
        time.sleep(scale.window)
        after = usage(pids)
        to_30 = 30 / scale.window
        samples = {
            "pss": [after.pss / MIB],
            "cpu": [(after.cpu - before.cpu) * to_30],
            "switches": [switches_between(before, after) * to_30],
            "processes": [after.processes],
            "threads": [after.threads],
            "memfds": [after.memfds / MIB],
            "descriptors": [after.descriptors],
        }
        if isinstance(fleet, Laneway):
            pair = {name: usage([pid]).descriptors for name, pid in fleet.pair().items()}
            samples |= {f"{name}_descriptors": [found] for name, found in pair.items()}
            samples["disk"] = [fleet.disk() / MIB]
    return samples


def status(kind: type[Fleet], tools: Tools, count: int, scale: Scale) -> Samples:
    """The command, from before its start to after its end."""
    with brought_up(kind, tools, Wanted(count), scale.settle) as fleet:
        return {"status": [fleet.run(fleet.status_command()).milliseconds for _ in range(scale.commands)]}


def stop(kind: type[Fleet], tools: Tools, count: int, scale: Scale) -> Samples:
    """One command ends all children, which end at once when they are asked to."""
    with brought_up(kind, tools, Wanted(count), scale.settle) as fleet:
        waiting, poll = set(), select.poll()
        begun = time.monotonic_ns()
        try:
            for told in fleet.births.values():
                waiting.add(pidfd := os.pidfd_open(told.pid))
                poll.register(pidfd, select.POLLIN)
            begun = time.monotonic_ns()
            pid = start(fleet.stop_command(), fleet.environment(), fleet.output)
            waiting.add(command := os.pidfd_open(pid))
            poll.register(command, select.POLLIN)
            ended: dict[int, float] = {}
            while waiting - ended.keys():
                ready = poll.poll(STOP * 1000)
                if not ready:
                    raise Impossible(f"stop: not all gone within {STOP:.0f} s")
                for pidfd, _ in ready:
                    poll.unregister(pidfd)
                    ended[pidfd] = (time.monotonic_ns() - begun) / 1e6
        finally:
            for pidfd in waiting:
                os.close(pidfd)
        if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise Impossible(f"stop: exit code {code}: {fleet.output.read_text(errors='replace')[-300:]}")
        returned = ended.pop(command)
        return {"gone": [max(ended.values())]} | ({"returned": [returned]} if fleet.stop_waits else {})


def log_large(kind: type[Fleet], tools: Tools, count: int, scale: Scale) -> Samples:
    """Children print as fast as they can, 64 KiB with each write."""
    line = 128
    return log(kind, tools, count, Flood(scale.large_writes // line // count, line, 65536 // line))


def log_small(kind: type[Fleet], tools: Tools, count: int, scale: Scale) -> Samples:
    """A line of 120 bytes with each write."""
    return log(kind, tools, count, Flood(scale.small_writes // 120 // count, 120, 1))


def log(kind: type[Fleet], tools: Tools, count: int, flood: Flood) -> Samples:
    """From the first write of a child until all bytes are in the files; then every line is looked at."""
    with brought_up(kind, tools, Wanted(count, flood=flood), 0.1) as fleet:
        os.sync()  # what others left to write is not ours
        os.close(os.open(fleet.root / "go", os.O_WRONLY))
        done = fleet.events.of["done"]
        fleet.events.wait(lambda: len(done) == count, 120, "log")
        wanted = flood.bytes * count
        size, seen = size_of(fleet), time.monotonic()
        while size < wanted and time.monotonic() - seen < WRITTEN:
            time.sleep(0.001)
            if (now := size_of(fleet)) != size:
                size, seen = now, time.monotonic()
        took = time.monotonic_ns() - min(told.at for told in fleet.events.of["flood"].values())
        for name in fleet.names:
            look_at_lines(fleet, name, flood)
        return {"log": [wanted / 1e6 / (took / 1e9)]}


def size_of(fleet: Fleet) -> int:
    """Bytes in all logs."""
    size = 0
    for name in fleet.names:
        for path in fleet.logs(name):
            with contextlib.suppress(FileNotFoundError):  # it is being renamed; the next look is a better one
                size += path.stat().st_size
    return size


def look_at_lines(fleet: Fleet, name: str, flood: Flood) -> None:
    """Raises `Impossible` unless the log is exactly what the child printed."""
    files = [str(path) for path in fleet.logs(name)]
    command = [str(fleet.tools.directory / "lines"), name, str(flood.lines), str(flood.line_bytes), *files]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    whole, missing, torn, reordered = map(int, ran.stdout.split())
    if (whole, missing, torn, reordered) != (flood.lines, 0, 0, 0):
        raise Impossible(
            f"log of {name}: of {flood.lines} lines {missing} are lost, {torn} torn, {reordered} out of order or twice"
        )


def check(kind: type[Fleet], tools: Tools, count: int, scale: Scale) -> Samples:
    """Reads and proves a file; nothing runs."""
    fleet = kind(tools, Wanted(count))
    assert isinstance(fleet, Laneway)
    try:
        return {"check": [fleet.run(fleet.check_command()).milliseconds for _ in range(scale.commands)]}
    finally:
        fleet.destroy()


def size(_: type[Fleet], tools: Tools, __: int, ___: Scale) -> Samples:
    """The file."""
    return {"size": [tools.laneway.stat().st_size / 1e6]}


# The goals are those that laneway has set itself, for a quiet machine of two processors.
TESTS = (
    Test(
        "start",
        start_up,
        (100, 1000),
        (
            Row("again", "start to all children running, state directories present", "ms", {100: 80, 1000: 1000}),
            Row("first", "start to all children running, first boot", "ms", {100: 120, 1000: 1500}),
        ),
    ),
    Test("crash", crash, (100,), (Row("crash", "kill -9 to the replacement's first instruction", "ms", {100: 2}),)),
    Test("mass", mass, (100,), (Row("mass", "half of them killed at one instant, all back", "ms", {100: 40}),)),
    Test("hang", hang, (3,), (Row("hang", "SIGSTOP to replacement, a check every 500 ms", "ms", {3: 1100}),)),
    Test("stop", stop, (100,), (
        Row("gone", "stop of all: children gone", "ms", {100: 20}),
        Row("returned", "stop of all: the command's return", "ms", {100: 20}),
    )),
    Test("status", status, (100, 1000), (Row("status", "status, the whole process", "ms", {100: 2, 1000: 5}),)),
    Test("check", check, (1000,), (Row("check", "check of the file, the whole process", "ms", {1000: 100}),)),
    Test(
        "log",
        log_large,
        (1, 8),
        (Row("log", "log, 64 KiB writes, every line checked", "MB/s", {1: 0.85, 8: 0.85}, of_floor=True),),
        fixed=True,
    ),
    Test(
        "log120",
        log_small,
        (1,),
        (Row("log", "log, 120-byte writes, every line checked", "MB/s", {1: 1.0}, of_floor=True),),
        fixed=True,
    ),
    Test(
        "idle",
        idle,
        (3, 10, 100, 1000),
        (
            Row("pss", "memory (PSS), a check every 5 s", "MiB", {100: 6, 1000: 12}),
            Row("cpu", "processor time in 30 s, a check every 5 s", "s", {100: 0.15}),
            Row("switches", "context switches in 30 s, a check every 5 s", "", {}),
        ),
        rounds=1,
    ),
    Test("size", size, (0,), (Row("size", "the binary", "MB", {0: 6}),), rounds=1, fixed=True),
)
