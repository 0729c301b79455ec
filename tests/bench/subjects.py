"""The two that every run measures: the floor, and laneway."""

import json
from pathlib import Path

from fleet import Fleet
from processes import run


class Floor(Fleet):
    """The least that a supervisor can do; see floor.c."""

    name = "floor"
    settings = "one process in C: posix_spawn, pidfd, epoll, a pipe per log; no policy, no state"
    largest = 1000
    can = Fleet.can | {"hang"}

    @classmethod
    def version(cls) -> str:
        return "tests/bench/floor.c"

    def up_command(self) -> list[str]:
        directory, wanted = self.tools.directory, self.wanted
        return [
            str(directory / "floor"),
            str(self.root),
            str(wanted.count),
            str(self.port),
            str(self.tools.child),
            str(wanted.check),
        ]

    def environment(self) -> dict[str, str]:
        return super().environment() | self.shared_environment()

    def status_command(self) -> list[str]:
        return [str(self.tools.directory / "client"), str(self.root / "floor.sock"), "status"]

    def stop_command(self) -> list[str]:
        return [str(self.tools.directory / "client"), str(self.root / "floor.sock"), "quit"]

    def logs(self, name: str) -> list[Path]:
        return [self.root / f"{name}.log"]


class Laneway(Fleet):
    """Keeper and supervisor. Restarts at once and without a brake, as the floor does."""

    name = "laneway"
    settings = (
        "restart: always, restart_brake: off, restart_policy: {delay: 10ms, max_delay: 10ms, window: 0s}, "
        "logging: {max_size: 16m, max_files: 64}; stop_grace_period: 100ms; "
        "no checks unless the row says so"
    )
    largest = 1000
    can = Fleet.can | {"hang", "check", "size"}

    @classmethod
    def version(cls) -> str:
        return "the binary that is measured"

    def configure(self) -> None:
        shared = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in self.shared_environment().items())
        check = "{disable: true}"
        if self.wanted.check:
            check = f"{{path: /health/, interval: {self.wanted.check}ms, "
            check += f"timeout: {self.wanted.timeout}ms, retries: {self.wanted.retries}}}"
        instances = "".join(f"  {name}: {{port: {self.port + i}}}\n" for i, name in enumerate(self.names))
        self._file = self.write(
            "instances.yaml",
            "name: bench\n"
            "state_dir: state\n"
            "restart_brake: off\n"
            "defaults:\n"
            f"  command: [{self.tools.child}]\n"
            "  restart: always\n"
            "  restart_policy: {delay: 10ms, max_delay: 10ms, window: 0s}\n"
            "  stop_grace_period: 100ms\n"
            "  logging: {max_size: 16m, max_files: 64}\n"
            f"  healthcheck: {check}\n"
            f"  environment:\n{shared}"
            f"instances:\n{instances}",
        )

    def environment(self) -> dict[str, str]:
        return super().environment() | {"XDG_STATE_HOME": str(self.root / "registry")}

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.tools.laneway), "-f", str(self._file), *arguments]

    def up_command(self) -> list[str]:
        return self._command("up", "-d")

    def status_command(self) -> list[str]:
        return self._command("status")

    def stop_command(self) -> list[str]:
        return self._command("stop", "*")

    def check_command(self) -> list[str]:
        """Reads the file and proves that nothing collides."""
        return self._command("check")

    def end(self) -> None:
        # Removes its cgroups, which a kill does not. Code 3: nothing runs.
        self.run(self._command("down", "--now"), (0, 3))

    def logs(self, name: str) -> list[Path]:
        log = self.root / "state" / name / "log" / f"{name}.log"
        old = sorted(log.parent.glob(f"{name}.log.*"), key=lambda path: int(path.suffix[1:]))
        return [*old, log]

    def pair(self) -> dict[str, int]:
        """The pids of keeper and supervisor."""
        answer = self.root / "status.json"
        run(self._command("status", "--json"), self.environment(), answer)
        status = json.loads(answer.read_text())
        answer.unlink()
        return {name: status[f"{name}_pid"] for name in ("keeper", "supervisor")}

    def disk(self) -> int:
        """Bytes that the state directory takes on the disk."""
        state = self.root / "state"
        return sum(path.lstat().st_blocks * 512 for path in [state, *state.rglob("*")])
