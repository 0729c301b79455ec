"""Prints numbered lines at a steady rate, and keeps in a file how many it has printed: what the audit compares.

    counter.py DIRECTORY LINES_PER_SECOND

Each run has a file of its own in DIRECTORY. A second copy that runs at the same time says `soak-twice`.
"""

import fcntl
import mmap
import os
import sys
import time
from pathlib import Path

TICK = 0.01  # seconds
LENGTH = 100  # bytes of a line, with its end


def main(directory: Path, rate: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    run = f"{time.time_ns()}-{os.getpid()}"
    only_one = open(directory / "only-one", "w")  # noqa: SIM115: held until the process ends
    try:
        fcntl.flock(only_one, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(1, b"soak-twice\n")
    with open(directory / f"{run}.count", "w+b") as file:
        file.truncate(8)
        printed = mmap.mmap(file.fileno(), 8)
    start, number = time.monotonic(), 0
    while True:
        # What a full pipe held back is caught up with: the rate is that of the whole run.
        while number < (time.monotonic() - start) * rate:
            number += 1
            os.write(1, f"soak-line {run} {number} ".encode().ljust(LENGTH - 1, b".") + b"\n")
            printed[:] = number.to_bytes(8, "little")
        time.sleep(TICK)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
