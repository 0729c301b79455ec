"""Requests at a steady rate: each client asks one server one question, over new connections or over one kept alive."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

TIMEOUT = 10.0  # seconds for one answer


@dataclass
class Client:
    """One thread that asks. Its requests are numbered, and so is what the server logs of them."""

    server: str
    port: int
    stream: str
    page: str
    keeps_alive: bool
    rate: float  # requests per second
    complain: Callable[[str], None]
    number: int = 0
    unanswered: set[int] = field(default_factory=set)
    slowest: float = 0.0  # seconds
    pids: list[int] = field(default_factory=list)
    _connection: http.client.HTTPConnection | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when the last request is answered."""
        self._over.set()
        self._thread.join(2 * TIMEOUT)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / self.rate, time.monotonic())
            self.number += 1
            start = time.monotonic()
            try:
                self._ask()
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.unanswered.add(self.number)
                self._close()
                self.complain(f"{self.server}: request {self.stream}-{self.number}: {type(error).__name__}: {error}")
            self.slowest = max(self.slowest, time.monotonic() - start)
        self._close()

    def _ask(self) -> None:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        self._connection.request("GET", f"{self.page}?soak={self.stream}-{self.number}")
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        if answer.getheader("Content-Type", "").startswith("application/json"):
            self._note_pid(json.loads(body)["pid"])
        if not self.keeps_alive:
            self._close()

    def _note_pid(self, pid: int) -> None:
        if self.pids[-1:] != [pid]:
            self.pids.append(pid)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
