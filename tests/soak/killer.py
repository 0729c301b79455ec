"""Kills keeper and supervisor at random moments, and measures how long it takes until `laneway status` answers again.

Which kills come when follows from the seed. A killed process is held by a pidfd since it was last seen alive in the
status, so that no stranger is killed, and one that died by itself is noticed.
"""

import os
import random
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fleet import SERVERS, Fleet

KINDS = ["supervisor", "keeper", "survivor", "both"]
PAUSE = (0.2, 3.0)  # seconds between control back and the next kill
SURVIVES = 0.03  # seconds: the most that a survivor lives longer
BETWEEN_LOOKS = 0.005  # seconds
PATIENCE = 20.0  # seconds until control counts as lost
EVERY_TENTH = 10


@dataclass
class Killer:
    """Kills until it is told to stop, or until control does not come back."""

    fleet: Fleet
    kinds: list[str]
    seed: int
    say: Callable[[str], None]
    complain: Callable[[str], None]
    kills: Counter[str] = field(default_factory=Counter)
    back: list[float] = field(default_factory=list)  # milliseconds
    restarts: Counter[str] = field(default_factory=Counter)
    _pids: dict[str, int] = field(default_factory=dict)
    _pidfds: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def run(self, over: threading.Event) -> None:
        """The loop; returns early when control is lost."""
        if not self.look():
            self.complain("the fleet that was brought up does not answer")
            return
        number = 0
        while self.kinds and not over.wait(self._random.uniform(*PAUSE)):
            number += 1
            if not self._kill_and_wait(self._choose(number)):
                return
        over.wait()

    def _choose(self, number: int) -> str:
        ordinary = [kind for kind in self.kinds if kind != "both"]
        if "both" in self.kinds and (number % EVERY_TENTH == 0 or not ordinary):
            return "both"
        return self._random.choice(ordinary)

    def _kill_and_wait(self, kind: str) -> bool:
        victims = self._victims(kind)
        self.say(f"kill {kind}: " + ", ".join(f"{name} {self._pids[name]}" for name in victims))
        for number, name in enumerate(victims):
            if number and kind == "survivor":
                time.sleep(self._random.uniform(0, SURVIVES))
            self._kill(name)
        start = time.monotonic()
        for name in victims:
            # Readable once it is dead.
            select.select([self._pidfds[name]], [], [], PATIENCE)
        self.kills[kind] += 1
        killed = {self._pids[name] for name in victims}
        while time.monotonic() - start < PATIENCE:
            # Only where nobody was left to take over, control may need a person.
            if len(victims) > 1 and self.fleet.is_unlocked() and not self._bring_up():
                return False
            if self.look(killed):
                self.back.append((time.monotonic() - start) * 1000)
                self.say(f"control is back after {self.back[-1]:.0f} ms")
                return True
            time.sleep(BETWEEN_LOOKS)
        self.complain(f"control did not come back in {PATIENCE:.0f} s after a kill: {kind}")
        return False

    def _victims(self, kind: str) -> list[str]:
        match kind:
            case "both":
                return ["supervisor", "keeper"]
            case "survivor":
                return self._random.sample(["supervisor", "keeper"], 2)
            case _:
                return [kind]

    def _kill(self, name: str) -> None:
        try:
            signal.pidfd_send_signal(self._pidfds[name], signal.SIGKILL)
        except ProcessLookupError:
            # The other's death, a moment ago, is no reason to die.
            self.complain(f"the {name} (pid {self._pids[name]}) had died before it was killed")
    def _bring_up(self) -> bool:
        self.say("nobody is left: laneway up -d")
        # Without the one that others start and stop meanwhile: their wish may be the contrary.
        said = self.fleet.run("up", "-d", *SERVERS, "steady", timeout=PATIENCE)
        if said.code != 0:
            self.complain(f"`laneway up -d` failed with {said.code}: {said.err.strip()}")
        return said.code == 0

    def look(self, killed: frozenset[int] | set[int] = frozenset()) -> bool:
        """Whether the status is answered, by a pair without the `killed`. Takes note of the pair and of restarts."""
        said, status = self.fleet.status()
        if status is None or "keeper_pid" not in status:
            self.say(f"status: exit code {said.code}: {said.err.strip()}")
            return False
        pids = {name: status[f"{name}_pid"] for name in ("supervisor", "keeper")}
        if killed & set(pids.values()):
            return False
        try:
            pidfds = {name: os.pidfd_open(pid) for name, pid in pids.items()}
        except ProcessLookupError:
            return False
        for pidfd in self._pidfds.values():
            os.close(pidfd)
        self._pids, self._pidfds = pids, pidfds
        for instance in status["instances"]:
            name = instance["name"]
            self.restarts[name] = max(self.restarts[name], instance["restarts"])
        return True


@dataclass
class Bidder:
    """Restarts, stops and starts one counter all the time, and holds `stop` to its word."""

    fleet: Fleet
    name: str
    seed: int
    say: Callable[[str], None]
    complain: Callable[[str], None]
    asked: Counter[str] = field(default_factory=Counter)
    broken_off: int = 0

    def run(self, over: threading.Event) -> None:
        """The loop. A command whose supervisor is killed under it may break off; the next one finds things in order."""
        chance = random.Random(self.seed)
        while not over.wait(chance.uniform(0.5, 2.0)):
            verb = chance.choice(["restart", "stop", "start"])
            self.asked[verb] += 1
            said = self.fleet.run(verb, self.name)
            if said.code != 0:
                self.broken_off += 1
                self.say(f"{verb} {self.name}: exit code {said.code}: {said.err.strip()}")
            elif verb == "stop" and (left := self._processes()):
                self.complain(f"`laneway stop {self.name}` returned, but these live: {left}")

    def _processes(self) -> dict[int, str]:
        directory = str(self.fleet.state / self.name / "runs")
        return {pid: command for pid, command in self.fleet.processes().items() if directory in command}
