"""Minutes to hours of random kills against the true example under load; then one table, and exit code 1 if anything
was lost. See `scripts/soak --help`."""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from audit import Audit
from fleet import COUNTERS, SERVERS, Fleet
from killer import KINDS, Bidder, Killer
from load import Client

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
AUDIT_EVERY = 1.0  # seconds
LAST_LINES = 10.0  # seconds in which what was printed must be in the logs
TOO_LONG = 300  # seconds over the duration after which the soak gives itself up
SHOWN = 10  # problems that are printed


def seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)([smh]?)", text)
    if not found:
        raise argparse.ArgumentTypeError("a duration such as 60, 90s, 10m or 2h")
    return int(found[1]) * UNITS[found[2]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("duration", nargs="?", type=seconds, default=600, help="60, 90s, 10m, 2h (default: 10m)")
    parser.add_argument("--kills", default="all", metavar="KINDS", help=f"all, none, or some of {','.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="which kills come when")
    parser.add_argument("--rate", type=float, default=5.0, help="requests per second of each of two clients per server")
    parser.add_argument("--keep", action="store_true", help="keep the directory also when all went well")
    given = parser.parse_args()
    words: dict[str, list[str]] = {"all": KINDS, "none": []}
    given.kinds = words.get(given.kills, given.kills.split(","))
    if unknown := set(given.kinds) - set(KINDS):
        parser.error(f"--kills: unknown: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return given


class Soak:
    """One soak: what goes on is written to `soak.log` in the fleet's directory, and counted."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.problems: list[str] = []
        self.fleet = Fleet(Path(os.environ["LANEWAY"]))
        self.audit = Audit(self.fleet.state, SERVERS, COUNTERS)
        self.killer = Killer(self.fleet, given.kinds, given.seed, self.say, self.complain)
        self.bidder = Bidder(self.fleet, "restless", given.seed, self.say, self.complain)
        self.clients: list[Client] = []
        self.took = 0.0
        self._start = time.monotonic()
        self._log = (self.fleet.directory / "soak.log").open("w", buffering=1)

    def say(self, text: str) -> None:
        """A line of the soak's log."""
        self._log.write(f"{time.monotonic() - self._start:9.3f} {text}\n")

    def complain(self, text: str) -> None:
        """Something that must not happen."""
        self.say(f"PROBLEM {text}")
        self.problems.append(text)

    def run(self) -> None:
        """From `up` to the last line of the logs."""
        said = self.fleet.run("up", "-d", "--wait", timeout=180)
        if said.code != 0:
            raise SystemExit(f"soak: `laneway up` failed with {said.code}:\n{said.out}{said.err}")
        start = time.monotonic()
        with self._load(), self._faults() as killing:
            while killing.is_alive() and time.monotonic() - start < self.given.duration:
                self.audit.read()
                time.sleep(AUDIT_EVERY)
        self.took = time.monotonic() - start
        self.killer.look()
        said = self.fleet.run("start", "--wait", *SERVERS, *COUNTERS)
        if said.code != 0:
            self.complain(f"in the end not all is well: {said.code}: {said.out}{said.err}")
        if left := self.fleet.destroy():
            self.complain(f"`laneway down` left these: {left}")
        self._read_to_the_end()

    @contextlib.contextmanager
    def _load(self) -> Iterator[None]:
        for server, port in self.fleet.ports.items():
            for stream, page, keeps_alive in (("new", "/health/", False), ("kept", "/login/", True)):
                client = Client(server, port, stream, page, keeps_alive, self.given.rate, self.complain)
                self.clients.append(client)
        try:
            yield
        finally:
            for client in self.clients:
                client.stop()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[threading.Thread]:
        over = threading.Event()
        threads = [threading.Thread(target=each.run, args=(over,), daemon=True) for each in (self.killer, self.bidder)]
        for thread in threads:
            thread.start()
        try:
            yield threads[0]
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _read_to_the_end(self) -> None:
        end = time.monotonic() + LAST_LINES
        self.audit.read()
        while self.lost() and time.monotonic() < end:
            time.sleep(AUDIT_EVERY)
            self.audit.read()
        for (name, writer), count in self.lost().items():
            self.complain(f"{name}: {count} lines of {writer} are not in its log")

    def lost(self) -> dict[tuple[str, str], int]:
        """Lines that are not in the logs, by writer."""
        return self.audit.lost({(each.server, each.stream): (each.number, each.unanswered) for each in self.clients})

    def changed_pids(self) -> int:
        """How often a server, or the counter that nobody asks to restart, was another process than before."""
        return sum(max(0, len(each.pids) - 1) for each in self.clients) + max(0, self.audit.runs("steady") - 1)

    def table(self) -> str:
        """What is printed in the end. What must be 0 and is not fails the soak."""
        back = self.killer.back
        kills = ", ".join(f"{count} {kind}" for kind, count in self.killer.kills.items()) or "none"
        asked = ", ".join(f"{count} {verb}" for verb, count in self.bidder.asked.items()) or "none"
        figures: list[tuple[str, object]] = [
            ("seed", self.given.seed),
            ("seconds", f"{self.took:.0f}"),
            ("requests", sum(client.number for client in self.clients)),
            ("slowest answer, ms", f"{max((client.slowest for client in self.clients), default=0) * 1000:.0f}"),
            ("kills", kills),
            ("control back, ms", f"median {statistics.median(back):.0f}, max {max(back):.0f}" if back else "-"),
            ("wishes for restless", f"{asked}; {self.bidder.broken_off} broken off"),
            ("log lines", self.audit.lines),
        ]
        rows = [(name, value, "") for name, value in figures]
        rows += [(name, value, " <-- must be 0" if value else "") for name, value in self.faults().items()]
        width = max(len(name) for name, _, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}{note}" for name, value, note in rows)

    def faults(self) -> dict[str, int]:
        """What must be 0."""
        return {
            "failed requests": sum(len(client.unanswered) for client in self.clients),
            "lines lost": sum(self.lost().values()),
            "lines doubled": self.audit.doubled,
            "lines out of order": self.audit.reordered,
            "lines torn": self.audit.torn,
            "log bytes dropped": self.audit.dropped_bytes,
            "second copies": self.audit.twice,
            "restarts counted": self.killer.restarts.total(),
            "pids changed unasked": self.changed_pids(),
        }


def give_up(*_: object) -> None:
    raise TimeoutError("the soak did not come to its end")


def main() -> int:
    given = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(given.duration + TOO_LONG)
    soak = Soak(given)
    print(f"soak: {given.duration} s, kills: {given.kills}, seed {given.seed}, in {soak.fleet.directory}", flush=True)
    failed = True
    try:
        soak.run()
        failed = bool(soak.problems) or any(soak.faults().values())
        print(soak.table())
        for problem in soak.problems[:SHOWN]:
            print(f"soak: {problem}")
        if len(soak.problems) > SHOWN:
            print(f"soak: ... and {len(soak.problems) - SHOWN} more, see soak.log")
    except KeyboardInterrupt:
        print("soak: interrupted; cleaning up", file=sys.stderr)
        failed = bool(soak.problems)
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        soak.fleet.destroy()
        if failed or given.keep:
            print(f"soak: the evidence is in {soak.fleet.directory}: soak.log, var/*/log, var/.run/laneway.log")
        else:
            shutil.rmtree(soak.fleet.directory)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
