"""Other supervisors, each with a driver as small as it can be: measured where their commands are found. Each has the
settings that make it fastest and, where it writes logs itself, the rotation that laneway has.

`systemd --user` is not among them: a user has one manager, whose processes are not the bench's alone."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from fleet import Fleet

ROTATE = 16 * 1024 * 1024  # bytes
KEPT = 64  # files


def said(*command: str) -> str:
    """The first line that a command prints."""
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=False)
    return ran.stdout.strip().partition("\n")[0]


class Peer(Fleet):
    """One that is measured where it is installed."""

    command = ""  # whose presence says that it is
    package = ""  # what to install

    @classmethod
    def is_found(cls) -> bool:
        """Whether it is installed."""
        return shutil.which(cls.command) is not None


class Supervisor(Peer):
    """supervisord."""

    name, command, package = "supervisor", "supervisord", "pip install supervisor"
    settings = "autorestart=true, startsecs=0, startretries=1000000"

    @classmethod
    def version(cls) -> str:
        return said("supervisord", "--version")

    def configure(self) -> None:
        root = self.root
        programs = ""
        for name in self.names:
            variables = ",".join(f'{key}="{value}"' for key, value in self.child_environment(name).items())
            programs += (
                f"[program:{name}]\ncommand={self.tools.child}\nenvironment={variables}\nredirect_stderr=true\n"
                f"stdout_logfile={root}/{name}.log\nstdout_logfile_maxbytes={ROTATE}\nstdout_logfile_backups={KEPT}\n"
                "autorestart=true\nstartsecs=0\nstartretries=1000000\n"
            )
        self._file = self.write(
            "supervisord.conf",
            f"[supervisord]\nnodaemon=true\nlogfile={root}/supervisord.log\npidfile={root}/pid\n"
            f"[unix_http_server]\nfile={root}/socket\n[supervisorctl]\nserverurl=unix://{root}/socket\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n" + programs,
        )

    def up_command(self) -> list[str]:
        return ["supervisord", "-n", "-c", str(self._file)]

    def status_command(self) -> list[str]:
        return ["supervisorctl", "-c", str(self._file), "status"]

    def stop_command(self) -> list[str]:
        return ["supervisorctl", "-c", str(self._file), "stop", "all"]

    def logs(self, name: str) -> list[Path]:
        old = sorted(self.root.glob(f"{name}.log.*"), key=lambda path: -int(path.suffix[1:]))
        return [*old, self.root / f"{name}.log"]


class ServiceDirectories(Peer):
    """What the family of daemontools has in common: a directory per service, a process per service and per logger."""

    logger = ""  # its command, before the directory

    def configure(self) -> None:
        for name in self.names:
            self.write(f"services/{name}/run", self.script(name), 0o755)
            self.write(f"services/{name}/log/run", f"#!/bin/sh\nexec {self.logger} {self.root}/{name}\n", 0o755)

    def _services(self) -> list[str]:
        return [f"{self.root}/services/{name}" for name in self.names]

    def logs(self, name: str) -> list[Path]:
        return [*sorted((self.root / name).glob("@*")), self.root / name / "current"]


class Daemontools(ServiceDirectories):
    """svscan, with a supervise and a multilog for each service."""

    name, command, package = "daemontools", "svscan", "apt-get install daemontools"
    settings = "svscan, supervise, multilog"
    logger = f"multilog n{KEPT} s16777215"
    stop_waits = False

    @classmethod
    def version(cls) -> str:
        return said("dpkg-query", "-W", "daemontools")

    def up_command(self) -> list[str]:
        return ["svscan", str(self.root / "services")]

    def status_command(self) -> list[str]:
        return ["svstat", *self._services()]

    def stop_command(self) -> list[str]:
        return ["svc", "-d", *self._services()]


class Runit(ServiceDirectories):
    """runsvdir, with a runsv and a svlogd for each service."""

    name, command, package = "runit", "runsvdir", "apt-get install runit"
    settings = "runsvdir, runsv, svlogd"
    logger = "svlogd"

    @classmethod
    def version(cls) -> str:
        return said("dpkg-query", "-W", "runit")

    def configure(self) -> None:
        super().configure()
        for name in self.names:
            self.write(f"{name}/config", f"s{ROTATE - 1}\nn{KEPT}\n")

    def up_command(self) -> list[str]:
        # It waits for a second where the directory changed a moment ago.
        os.utime(self.root / "services", (0, 0))
        return ["runsvdir", "-P", str(self.root / "services")]

    def status_command(self) -> list[str]:
        return ["sv", "status", *self._services()]

    def stop_command(self) -> list[str]:
        return ["sv", "-w", "30", "stop", *self._services()]


class S6(ServiceDirectories):
    """s6-svscan, with a s6-supervise and a s6-log for each service. It waits a second before each restart."""

    name, command, package = "s6", "s6-svscan", "apt-get install s6"
    settings = "s6-svscan, s6-supervise, s6-log; status is one s6-svstat for each service"
    logger = f"s6-log n{KEPT} s{ROTATE}"
    stop_waits = False

    @classmethod
    def version(cls) -> str:
        return said("dpkg-query", "-W", "s6")

    def up_command(self) -> list[str]:
        return ["s6-svscan", "-c", str(2 * self.wanted.count + 10), str(self.root / "services")]

    def status_command(self) -> list[str]:
        return ["sh", "-c", f"for service in {self.root}/services/*; do s6-svstat $service; done"]

    def stop_command(self) -> list[str]:
        return ["s6-svscanctl", "-t", str(self.root / "services")]


class Pm2(Peer):
    """pm2."""

    name, command, package = "pm2", "pm2", "npm install --global pm2"
    settings = "fork mode, max_restarts 1000000, min_uptime 100"

    @classmethod
    def version(cls) -> str:
        package = Path(shutil.which("pm2") or "").resolve().parents[1] / "package.json"
        return json.loads(package.read_text())["version"]

    def configure(self) -> None:
        shared = {"script": str(self.tools.child), "interpreter": "none", "exec_mode": "fork", "cwd": str(self.root)}
        shared |= {"autorestart": True, "max_restarts": 1_000_000, "min_uptime": 100, "vizion": False}
        programs = [
            shared
            | {"name": name, "env": self.child_environment(name), "merge_logs": True}
            | {f"{stream}_file": f"{self.root}/{name}.log" for stream in ("out", "error")}
            for name in self.names
        ]
        self._file = self.write("programs.config.json", json.dumps({"apps": programs}))

    def environment(self) -> dict[str, str]:
        return super().environment() | {"PM2_HOME": str(self.root / "pm2"), "PM2_DISABLE_VERSION_CHECK": "true"}

    def up_command(self) -> list[str]:
        return ["pm2", "start", str(self._file), "--silent"]

    def status_command(self) -> list[str]:
        return ["pm2", "ls"]

    def stop_command(self) -> list[str]:
        return ["pm2", "stop", "all", "--silent"]

    def logs(self, name: str) -> list[Path]:
        return [self.root / f"{name}.log"]


class Monit(Peer):
    """monit. It starts one child after the other, so it is measured with few; children write their own logs."""

    name, command, package = "monit", "monit", "apt-get install monit"
    settings = "set daemon 1 (its shortest); hang: `with timeout 1 second then restart`"
    largest = 10
    can = frozenset({"start", "idle", "status", "stop", "hang"})
    stop_waits = False

    @classmethod
    def version(cls) -> str:
        return said("monit", "-V")

    def configure(self) -> None:
        root = self.root
        text = f"set daemon 1\nset log {root}/monit.log\nset pidfile {root}/pid\nset idfile {root}/id\n"
        text += f"set statefile {root}/state\nset httpd unixsocket {root}/socket\n  allow localhost\n"
        for index, name in enumerate(self.names):
            note = f"{root}/{name}.pid"
            self.write(f"{name}.child", self.script(name, f">>{root}/{name}.log 2>&1 </dev/null"), 0o755)
            self.write(f"{name}.run", f"#!/bin/sh\necho $$ >{note}\nexec {root}/{name}.child\n", 0o755)
            begin = self.write(f"{name}.start", f"#!/bin/sh\n{root}/{name}.run &\n", 0o755)
            end = self.write(f"{name}.stop", f"#!/bin/sh\nkill -TERM $(cat {note}); kill -CONT $(cat {note})\n", 0o755)
            text += f"check process {name} with pidfile {note}\n"
            text += f'  start program = "{begin}"\n  stop program = "{end}"\n'
            if self.wanted.check:
                text += f"  if failed host 127.0.0.1 port {self.port + index} protocol http"
                text += ' request "/health/" with timeout 1 second then restart\n'
        self._file = self.write("monitrc", text, 0o600)

    def up_command(self) -> list[str]:
        return ["monit", "-c", str(self._file), "-I"]

    def status_command(self) -> list[str]:
        return ["monit", "-c", str(self._file), "summary"]

    def stop_command(self) -> list[str]:
        return ["monit", "-c", str(self._file), "stop", "all"]


PEERS: list[type[Peer]] = [Supervisor, Runit, Daemontools, S6, Pm2, Monit]
