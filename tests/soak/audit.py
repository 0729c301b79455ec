"""Reads the logs while laneway writes and rotates them, and counts lines that are lost, doubled, out of order or torn.

Counters say in a file of each run how many lines they printed; servers print one line for each request.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

COUNTED = re.compile(rb"soak-line (\S+) (\d+) \.+")
REQUESTED = re.compile(rb"GET /\w+/\?soak=(\w+)-(\d+) ")
DROPPED = re.compile(rb"\[laneway: (\d+) bytes of log dropped\]")
COUNTED_LENGTH = 99  # bytes, without the line end
BLOCK = 1 << 20


class Tail:
    """Follows one log over its rotations; each byte comes once."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.number = 1
        self.offset = 0
        self.partial = b""

    def news(self) -> list[bytes]:
        """The whole lines that came since the last call."""
        lines: list[bytes] = []
        while True:
            rotated = self.log.with_name(f"{self.log.name}.{self.number}")
            path = rotated if rotated.exists() else self.log
            try:
                file = path.open("rb")
            except FileNotFoundError:
                return lines
            with file:
                # Renamed between the look and the opening: this may be the next file already.
                if path != rotated and rotated.exists():
                    continue
                if path != rotated and self._is_past():
                    raise RuntimeError(f"{rotated} was removed before it was read: the audit fell behind")
                file.seek(self.offset)
                while block := file.read(BLOCK):
                    self.offset += len(block)
                    *whole, self.partial = (self.partial + block).split(b"\n")
                    lines += whole
            if path != rotated:
                return lines
            self.number, self.offset = self.number + 1, 0

    def _is_past(self) -> bool:
        endings = (path.name.rpartition(".")[2] for path in self.log.parent.glob(f"{self.log.name}.*"))
        return any(int(ending) >= self.number for ending in endings if ending.isdecimal())


@dataclass
class Sequence:
    """The numbers of one writer, in the order in which they came."""

    last: int = 0
    missing: set[int] = field(default_factory=set)
    doubled: int = 0
    reordered: int = 0

    def see(self, number: int) -> None:
        if number > self.last:
            self.missing.update(range(self.last + 1, number))
            self.last = number
        elif number in self.missing:
            self.missing.remove(number)
            self.reordered += 1
        else:
            self.doubled += 1

    def lost(self, printed: int, uncertain: set[int] | frozenset[int] = frozenset()) -> int:
        """How many of the `printed` never came; of the `uncertain` nobody knows whether they were printed."""
        return len((self.missing | set(range(self.last + 1, printed + 1))) - uncertain)


class Audit:
    """All logs of the fleet."""

    def __init__(self, state: Path, servers: list[str], counters: list[str]) -> None:
        self.state = state
        self.counters = counters
        self.tails = {name: Tail(state / name / "log" / f"{name}.log") for name in servers + counters}
        self.sequences: dict[tuple[str, str], Sequence] = defaultdict(Sequence)
        self.lines = 0
        self.torn = 0
        self.dropped_bytes = 0
        self.twice = 0

    def read(self) -> None:
        """Takes in what came since the last call."""
        for name, tail in self.tails.items():
            for line in tail.news():
                self._take(name, line)

    def _take(self, name: str, line: bytes) -> None:
        counted = COUNTED.fullmatch(line) if len(line) == COUNTED_LENGTH else None
        if found := counted or REQUESTED.search(line):
            self.lines += 1
            self.sequences[name, found[1].decode()].see(int(found[2]))
        elif found := DROPPED.search(line):
            self.dropped_bytes += int(found[1])
        elif b"soak-twice" in line:
            self.twice += 1
        elif b"soak-line" in line:
            self.torn += 1

    def runs(self, counter: str) -> int:
        """How often a counter was started."""
        return len(self._printed(counter))

    def _printed(self, counter: str) -> dict[str, int]:
        files = (self.state / counter / "runs").glob("*.count")
        return {file.stem: int.from_bytes(file.read_bytes(), "little") for file in files}

    def lost(self, requests: dict[tuple[str, str], tuple[int, set[int]]]) -> dict[tuple[str, str], int]:
        """Lines that never came, by writer. `requests` has the last number of each stream, and those without answer."""
        lost = {
            (counter, run): self.sequences[counter, run].lost(printed)
            for counter in self.counters
            for run, printed in self._printed(counter).items()
        }
        lost |= {stream: self.sequences[stream].lost(*numbers) for stream, numbers in requests.items()}
        return {writer: count for writer, count in lost.items() if count}

    @property
    def doubled(self) -> int:
        return sum(sequence.doubled for sequence in self.sequences.values())

    @property
    def reordered(self) -> int:
        return sum(sequence.reordered for sequence in self.sequences.values())
