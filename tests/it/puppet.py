"""A server that behaves as badly as it is told to. Python's standard library only, without `http.server`: it starts fast.

It listens on HOST:PORT of its environment. What it does by itself stands in PUPPET, as words:

    slow=MS           listens only after MS milliseconds        never-listen      lives and never listens
    listen=PORT       listens there instead of on PORT          reuseport         lets others share the port
    crash=MS:CODE     ends with CODE after MS milliseconds      exit0             ends at once, with success
    ignore-term       minds no SIGTERM                          hang              accepts and never answers
    status=N          answers /health/ with N                   location=URL      ... and with this Location
    body=TEXT         answers /health/ with this text           flood=N           prints N numbered lines at its start
    say=TEXT          prints TEXT at its start                  last=TEXT         prints TEXT without line end when it crashes
    daemon=KIND       leaves a process behind, see `daemon`     leader-ends=MS    the first process ends after MS milliseconds
    uid=N             becomes user N once it listens            cookie=NAME       answers / with a cookie of this name
    writes=PATH       writes there when asked for /health/?write=1, or another page that ends so

What it does when asked (GET):

    /health/          its health                                /self             what it was started with, as JSON
    /hang             from now on it never answers              /crash?CODE       ends with CODE
    /print?N          prints N numbered lines                   /say?TEXT         prints TEXT (URL-encoded)
    /freeze           stops itself (SIGSTOP)                    /daemon?KIND      leaves a process behind, answers its pid
    /listen?PORT      listens there too                         /access?TEXT      writes TEXT into the access log
    /count            how many lines it was asked to print so far
    /bomb?N:MS        N processes that fork away every MS ms     /spin?N           N busy loops, for at most 20 s
    /eat?N            takes N MiB of memory
    /open?PATH        opens this file for writing, and keeps it open
    /try?WHAT:ON      tries something that may be forbidden, see `attempt`; answers `done` or the error
    /pid              its pid                               /line             answers each line with its pid, for ever

A daemon is forked twice, in its own session, and minds no SIGTERM. KIND: `plain`, `port` (keeps the listening socket),
`bare` (another program, with an empty environment), `silent` (the same, and its output goes nowhere), `uid` (becomes
nobody), `stopped` (by SIGSTOP).
"""

import os
import signal
import socket
import sys
import threading
import time

WORDS = dict((word.split("=", 1) + [""])[:2] for word in os.environ.get("PUPPET", "").split())
HOST = os.environ.get("HOST", "127.0.0.1")
hanging = threading.Event()
printing = threading.Lock()
opened = []
printed = 0


def say(text):
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def print_numbered(count):
    """Lines `line 000001` ..., counted over the whole life of the process."""
    global printed
    with printing:
        for first in range(printed, printed + count, 1000):
            last = min(first + 1000, printed + count)
            say(b"".join(b"line %07d of %s\n" % (n, NAME) for n in range(first + 1, last + 1)))
        printed += count


def unquote(text):
    pieces = text.replace("+", " ").encode().split(b"%")
    return pieces[0] + b"".join(bytes([int(piece[:2], 16)]) + piece[2:] for piece in pieces[1:])


def daemon(kind, listeners):
    """Forks twice; returns the pid of what is left behind."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if kind != "port":
            for listener in listeners:
                listener.close()
        os.write(writer, str(os.getpid()).encode())
        os.close(writer)
        if kind == "silent":
            nowhere = os.open("/dev/null", os.O_RDWR)
            for number in range(3):
                os.dup2(nowhere, number)
        if kind in ("bare", "silent"):
            os.execve("/bin/sleep", ["sleep", "1000"], {})
        if kind == "uid":
            os.setresuid(65534, 65534, 65534)
        if kind == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        while True:
            time.sleep(1000)
    os.close(writer)
    os.wait()
    pid = os.read(reader, 20)
    os.close(reader)
    return pid.decode()


def bomb(count, pause):
    """Processes in sessions of their own, each of which hands on to a child and ends, so that none lives long enough to
    be found by its number. They begin together; niced, so that the machine goes on, and ending by themselves, so that a
    failed test does not keep it.
    """
    end = time.monotonic() + 12
    reader, writer = os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            os.close(writer)
            os.setsid()
            os.nice(19)
            os.read(reader, 1)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while time.monotonic() < end:
                time.sleep(pause)
                if os.fork() != 0:
                    os._exit(0)
            os._exit(0)
    os.close(reader)
    os.close(writer)


def spin(count):
    end = time.monotonic() + 20
    for _ in range(count):
        if os.fork() == 0:
            while time.monotonic() < end:
                pass
            os._exit(0)


def limits():
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)


def status_field(name):
    with open("/proc/self/status") as status:
        return next(line.split(":", 1)[1].strip() for line in status if line.startswith(name + ":"))


def attempt(what, on):
    """What an instance that was broken into would try."""
    try:
        if what == "write":
            with open(on, "a") as file:
                file.write("mine now\n")
        elif what == "truncate":
            os.truncate(on, 0)
        elif what == "delete":
            os.unlink(on)
        elif what == "rename":
            os.rename(on, on + ".gone")
        elif what == "read":
            with open(on, "rb") as file:
                file.read(1)
        elif what == "list":
            os.listdir(on)
        elif what in ("bind", "udp"):
            kind = socket.SOCK_STREAM if what == "bind" else socket.SOCK_DGRAM
            with socket.socket(socket.AF_INET, kind) as taken:
                taken.bind((HOST, int(on)))
        elif what == "connect":
            socket.create_connection((HOST, int(on)), timeout=5).close()
        elif what == "abstract":
            with socket.socket(socket.AF_UNIX) as other:
                other.connect("\0" + on)
        elif what == "signal":
            os.kill(int(on), 0)
        elif what == "environ":
            with open("/proc/%s/environ" % on, "rb") as environ:
                environ.read(1)
        elif what == "ask":
            path, route, body = on.split(" ", 2)
            with socket.socket(socket.AF_UNIX) as door:
                door.connect(path)
                head = "POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % (route, len(body))
                door.sendall((head + body).encode())
                return door.makefile().readline().split(" ")[1]
        elif what == "child":
            # Whoever it makes is held to the same.
            return os.popen(on).read().strip() or "nothing"
        else:
            return "unknown"
    except OSError as error:
        return error.strerror or str(error)
    return "done"


def about_self():
    import json

    descriptors = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            descriptors[number] = os.readlink("/proc/self/fd/" + number)
        except OSError:
            pass
    mask = os.umask(0)
    os.umask(mask)
    with open("/proc/self/environ", "rb") as environ:
        environment = dict(e.split("=", 1) for e in environ.read().decode().split("\0") if e)
    with open("/proc/self/oom_score_adj") as score:
        oom = int(score.read())
    return json.dumps(
        {
            "environment": environment,
            "descriptors_at_start": DESCRIPTORS,
            "descriptors": descriptors,
            "umask": mask,
            "nofile": limits(),
            "pid": os.getpid(),
            "sid": os.getsid(0),
            "pgid": os.getpgid(0),
            "cwd": os.getcwd(),
            "blocked": BLOCKED,
            "ignored": IGNORED,
            "oom_score_adj": oom,
            "argv": sys.argv,
        }
    )


def answer(connection, listeners):
    with connection:
        head = b""
        while b"\r\n\r\n" not in head:
            got = connection.recv(4096)
            if not got:
                return
            head += got
        if hanging.is_set():
            time.sleep(1000)
        path, _, query = head.split(b" ")[1].decode().partition("?")
        code, body, more, after = 200, "ok\n", "", None
        if query.endswith("write=1") and "writes" in WORDS:
            with open(WORDS["writes"], "ab", buffering=0) as file:
                file.write(b"written\n")
        if path == "/" and "cookie" in WORDS:
            more = "Set-Cookie: %s=1; Path=/\r\n" % WORDS["cookie"]
        elif path == "/open":
            opened.append(open(unquote(query), "ab"))
        elif path == "/health/":
            code = int(WORDS.get("status", 200))
            body = WORDS.get("body", "healthy") + "\n"
            if "location" in WORDS:
                more = "Location: %s\r\n" % WORDS["location"]
        elif path == "/pid":
            body = str(os.getpid())
        elif path == "/line":
            for _ in connection.makefile("rb"):
                connection.sendall(b"%d\n" % os.getpid())
            return
        elif path == "/try":
            what, _, on = unquote(query).decode().partition(":")
            body = attempt(what, on)
        elif path == "/self":
            body = about_self()
        elif path == "/hang":
            after = hanging.set
        elif path == "/crash":
            after = lambda: crash(int(query or 1))
        elif path == "/print":
            print_numbered(int(query))
        elif path == "/count":
            body = str(printed)
        elif path == "/say":
            say(unquote(query))
        elif path == "/freeze":
            after = lambda: os.kill(os.getpid(), signal.SIGSTOP)
        elif path == "/daemon":
            body = daemon(query, listeners)
        elif path == "/bomb":
            count, pause = query.split(":")
            bomb(int(count), int(pause) / 1000)
        elif path == "/eat":
            # Not all zeros: each page is its own.
            eaten = [os.urandom(1 << 20) for _ in range(int(query))]
            body = str(len(eaten))
        elif path == "/spin":
            spin(int(query))
        elif path == "/listen":
            listeners.append(listen(int(query)))
            serve(listeners[-1], listeners)
        elif path == "/access":
            with open(os.environ["ACCESS_LOG"], "ab", buffering=0) as log:
                log.write(unquote(query) + b"\n")
        else:
            code = 404
        head = "HTTP/1.1 %d Puppet\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n" % (code, len(body), more)
        connection.sendall(head.encode() + body.encode())
        connection.shutdown(socket.SHUT_RDWR)
    if after:
        after()


def listen(port):
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "reuseport" in WORDS:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((HOST, port))
    listener.listen(64)
    return listener


def serve(listener, listeners):
    def run():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection, listeners), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()


def crash(code):
    if "last" in WORDS:
        say(WORDS["last"].encode())
    os._exit(code)


def later(milliseconds, what):
    timer = threading.Timer(int(milliseconds) / 1000, what)
    timer.daemon = True
    timer.start()


def main():
    if "say" in WORDS:
        say(WORDS["say"].encode() + b"\n")
    if "exit0" in WORDS:
        return
    if "ignore-term" in WORDS:
        # Otherwise no handler of Python's: one that another thread was interrupted by never wakes the first.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "crash" in WORDS:
        time_, _, code = WORDS["crash"].partition(":")
        later(time_, lambda: crash(int(code or 1)))
    if "flood" in WORDS:
        print_numbered(int(WORDS["flood"]))
    if "hang" in WORDS:
        hanging.set()
    if "slow" in WORDS:
        time.sleep(int(WORDS["slow"]) / 1000)
    listeners = []
    port = WORDS.get("listen", os.environ.get("PORT"))
    if port and "never-listen" not in WORDS:
        listeners.append(listen(int(port)))
        serve(listeners[0], listeners)
    if "uid" in WORDS:
        os.setresuid(*[int(WORDS["uid"])] * 3)
    if "daemon" in WORDS:
        daemon(WORDS["daemon"], listeners)
    if "leader-ends" in WORDS:
        later(WORDS["leader-ends"], lambda: os._exit(0))
    while True:
        signal.pause()


NAME = os.environ.get("INSTANCE_NAME", "?").encode()
try:
    DESCRIPTORS = {n: os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n)}
    BLOCKED, IGNORED = status_field("SigBlk"), status_field("SigIgn")
except PermissionError:
    # Whoever reads narrowly sees no /proc.
    DESCRIPTORS, BLOCKED, IGNORED = {}, "", ""
main()
