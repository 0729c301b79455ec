"""Processes of the bench: how they are started, found, read and ended, each by its pid. Linux only.

The bench adopts orphans (it is a subreaper), so everything that it ever started is found among its descendants, however
often that forked away."""

import contextlib
import ctypes
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 20.0  # seconds
RESET = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD]


class Impossible(Exception):
    """A measurement that could not be made, and why."""


def adopt_orphans() -> None:
    """Makes this process the parent of its descendants' orphans."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def start(command: list[str], environment: dict[str, str], output: Path) -> int:
    """Starts a command in a session of its own, its output appended to a file; its pid."""
    files = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawnp(
        command[0], command, environment, file_actions=files, setsid=True, setsigdef=RESET, setsigmask=[]
    )


@dataclass(frozen=True)
class Ended:
    """A command that ran to its end."""

    code: int
    milliseconds: float  # from just before its start until it was reaped


def run(command: list[str], environment: dict[str, str], output: Path, seconds: float = 120) -> Ended:
    """Runs a command to its end, at most so long."""
    begun = time.monotonic_ns()
    pid = start(command, environment, output)
    pidfd = os.pidfd_open(pid)
    in_time, _, _ = select.select([pidfd], [], [], seconds)
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    took = (time.monotonic_ns() - begun) / 1e6
    os.close(pidfd)
    if not in_time:
        raise Impossible(f"`{' '.join(command[:4])} ...` took longer than {seconds:.0f} s")
    return Ended(os.waitstatus_to_exitcode(status), took)


def reap() -> None:
    """Takes note of ended orphans, as init would: some supervisors ask the pid of a child that is not theirs."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def descendants() -> list[int]:
    """Every process that the bench has started and that is not reaped."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):  # it has ended
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [os.getpid()]
    while todo:
        todo += (more := children.get(todo.pop(), []))
        found += more
    return found


def program_of(pid: int) -> str:
    """The path of its program; empty if it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def end_all(child: Path) -> None:
    """Kills all descendants; supervisors before their children, so that these are not started again."""
    end = time.monotonic() + PATIENCE
    while found := descendants():
        if time.monotonic() > end:
            raise Impossible(f"these do not end: {found}")
        for pid in sorted(found, key=lambda pid: program_of(pid) == str(child)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.005)


@dataclass(frozen=True)
class Usage:
    """What some processes have used so far, or hold now."""

    processes: int
    threads: int
    descriptors: int
    cpu: float  # seconds, ended threads included
    switches: dict[int, int]  # context switches of each living thread
    pss: int  # bytes: memory, what is shared counted by its share
    memfds: int  # bytes in memory files that need not be mapped, and so are not in the PSS


def usage(pids: list[int]) -> Usage:
    """Reads it from /proc; raises `Impossible` when one of them has ended."""
    threads: dict[int, int] = {}
    descriptors, cpu, pss, memfds = 0, 0.0, 0, {}
    try:
        for pid in pids:
            proc = Path("/proc", str(pid))
            for task in (proc / "task").iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # threads come and go
                    lines = (task / "status").read_text().splitlines()
                    threads[int(task.name)] = sum(int(line.split()[1]) for line in lines if "_ctxt_switches" in line)
            # The processor clock of another process; `man clock_getcpuclockid` has no call in Python.
            cpu += time.clock_gettime((~pid << 3) | 2)
            pss += next(
                int(line.split()[1]) * 1024
                for line in (proc / "smaps_rollup").read_text().splitlines()
                if line.startswith("Pss:")
            )
            for descriptor in (proc / "fd").iterdir():
                descriptors += 1
                with contextlib.suppress(FileNotFoundError):
                    if os.readlink(descriptor).startswith("/memfd:"):
                        status = descriptor.stat()
                        memfds[status.st_dev, status.st_ino] = status.st_blocks * 512
    except OSError as error:
        raise Impossible(f"a process of the supervisor ended while it was looked at: {error}") from error
    return Usage(len(pids), len(threads), descriptors, cpu, threads, pss, sum(memfds.values()))


def switches_between(before: Usage, after: Usage) -> int:
    """Context switches from one look to the next, of threads that lived at the second one."""
    return sum(count - before.switches.get(thread, 0) for thread, count in after.switches.items())
