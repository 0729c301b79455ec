"""Measures laneway beside a floor (the least that a supervisor can do) and beside other supervisors, all in one run,
so that the figures may be compared however busy the machine is. Then one table: each figure with its least, median and
greatest value, its ratio to the floor, and what laneway's own goal says. See docs/performance.md."""

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import report
from fleet import Fleet, Tools
from measures import SMOKE, TESTS, Scale, Test
from peers import PEERS, Peer
from processes import Impossible, adopt_orphans, end_all
from subjects import Floor, Laneway

HERE = Path(__file__).resolve().parent
PROGRAMS = ("child", "floor", "client", "lines")
LARGE = 1000  # children; from there on fewer rounds are enough
FEW = 3  # rounds with so many, and of peers
AT_MOST = {False: 7200, True: 120}  # seconds, for a run and a smoke run


def arguments() -> argparse.Namespace:
    names = [test.name for test in TESTS]
    install = "\n".join(f"  {peer.name:12} {peer.package}" for peer in PEERS)
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        epilog=f"tests: {', '.join(names)}\n\npeers are measured where their commands are found in PATH:\n{install}\n\n"
        "exit code: 0 measured (a missed goal is shown, and is no failure), 1 something could not be measured or a log "
        "line\nwas lost, 2 wrong usage, 130 interrupted",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--test", metavar="NAME,...", default=",".join(names), help="only these tests")
    parser.add_argument("--n", metavar="N,...", help="numbers of children instead of each test's own (not for logs)")
    parser.add_argument("--runs", metavar="N", type=int, help="rounds of each test, each with a new fleet (default: 5)")
    parser.add_argument("--peers", metavar="WHICH", default="auto", help="auto (all that are found), none, or NAME,...")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything there, every sample too")
    parser.add_argument("--binary", metavar="PATH", type=Path, required=True, help="laneway (default: a release build)")
    parser.add_argument("--smoke", action="store_true", help="seconds: whether everything can be measured, at N=3")
    given = parser.parse_args()

    given.tests = [test for test in TESTS if test.name in given.test.split(",")]
    if unknown := set(given.test.split(",")) - set(names):
        parser.error(f"--test: unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    try:
        given.counts = tuple(int(text) for text in given.n.split(",")) if given.n else (3,) if given.smoke else None
    except ValueError:
        parser.error(f"--n: whole numbers, such as 3,100, not `{given.n}`")
    if given.counts and not all(1 <= count <= 2000 for count in given.counts):
        parser.error("--n: 1 to 2000")
    if given.runs is None:
        given.runs = 1 if given.smoke else 5
    if given.runs < 1:
        parser.error("--runs: at least 1")
    if not os.access(given.binary, os.X_OK) or not given.binary.is_file():
        parser.error(f"--binary: {given.binary} is no program")
    wanted = [] if given.peers == "none" or (given.smoke and given.peers == "auto") else given.peers.split(",")
    found = {peer.name: peer for peer in PEERS if peer.is_found()}
    given.missing = [f"{peer.name} ({peer.package})" for peer in PEERS if peer.name not in found]
    if given.peers not in ("auto", "none") and (unknown := set(wanted) - set(found)):
        parser.error(f"--peers: not found: {', '.join(sorted(unknown))}; found: {', '.join(found) or 'none'}")
    given.found = [peer for name, peer in found.items() if wanted == ["auto"] or name in wanted]
    return given


def compile_programs(directory: Path) -> None:
    """The C programs; static where there is a static libc, so that starting one costs as little as it can."""
    compiler = shutil.which("gcc") or shutil.which("cc") or fail("gcc is missing: apt-get install gcc libc6-dev")
    for name in PROGRAMS:
        command = [compiler, "-O2", "-D_GNU_SOURCE", "-o", str(directory / name), str(HERE / f"{name}.c")]
        ran = subprocess.run([*command, "-static"], capture_output=True, check=False)
        if ran.returncode and subprocess.run(command, check=False).returncode:
            fail(f"{name}.c does not compile")


def fail(what: str) -> NoReturn:
    raise SystemExit(f"bench: {what}")


def describe(given: argparse.Namespace, tools: Tools) -> dict:
    """Machine and settings: what one has to know to read the figures."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = models[0].partition(":")[2].strip() if models else platform.machine()
    disk = subprocess.run(["stat", "-f", "-c", "%T", tools.directory], stdout=subprocess.PIPE, text=True, check=True)
    laneway = subprocess.run([tools.laneway, "--version"], stdout=subprocess.PIPE, text=True, check=True)
    versions = {"laneway": f"{laneway.stdout.strip()}, {given.binary}"}
    subjects: list[type[Fleet]] = [Floor, Laneway, *given.found]
    return {
        "machine": f"{os.cpu_count()} x {cpu}, Linux {platform.release()}, {disk.stdout.strip()}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "subjects": {each.name: versions.get(each.name) or each.version() for each in subjects},
        "settings": {each.name: each.settings for each in subjects},
        "not_found": given.missing,
    }


def print_description(about: dict) -> None:
    print(f"machine     {about['machine']}; load at the start {about['load']}")
    for name, version in about["subjects"].items():
        print(f"{name:11} {version}\n{'':11}   {about['settings'][name]}")
    print(f"not found   {', '.join(about['not_found']) or 'none'}", flush=True)


def measure(given: argparse.Namespace, tools: Tools, results: report.Results) -> None:
    """All tests. Rounds go through all supervisors, so that what else the machine does hits each of them alike."""
    scale = SMOKE if given.smoke else Scale()
    subjects: list[type[Fleet]] = [Floor, Laneway, *given.found]
    for test in given.tests:
        for count in test.counts if test.fixed or not given.counts else given.counts:
            able = [each for each in subjects if count <= each.largest and can(each, test)]
            rounds = min(given.runs, test.rounds, FEW if count >= LARGE else given.runs)
            took = dict.fromkeys((each.name for each in able), 0.0)
            for turn in range(rounds):
                for each in able if turn % 2 == 0 else able[::-1]:
                    if turn >= FEW and issubclass(each, Peer):
                        continue  # they take minutes, and are there for comparison
                    begun = time.monotonic()
                    try:
                        results.add(test.name, count, each.name, test.measure(each, tools, count, scale))
                    except Impossible as problem:
                        able = [other for other in able if other is not each]
                        of_ours = results.notes if issubclass(each, Peer) else results.problems
                        of_ours.append(f"{test.name}, N={count}, {each.name}: {problem}")
                    took[each.name] += time.monotonic() - begun
            spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items())
            print(f"==> {test.name}, N={count}, rounds: {rounds}; {spent}", file=sys.stderr, flush=True)


def can(kind: type[Fleet], test: Test) -> bool:
    """Whether a test makes sense with it."""
    return ("log" if test.name == "log120" else test.name) in kind.can


def stop_at_signals() -> None:
    """The first signal ends everything in order; those after it change nothing."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)

    def interrupt(number: int, _: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise TimeoutError if number == signal.SIGALRM else KeyboardInterrupt

    for each in numbers:
        signal.signal(each, interrupt)


def main() -> int:
    given = arguments()
    stop_at_signals()
    signal.alarm(AT_MOST[given.smoke])
    adopt_orphans()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results = report.Results()
    tools = Tools(Path(tempfile.mkdtemp(prefix="laneway-bench-")), given.binary.resolve())
    code = 0
    try:
        compile_programs(tools.directory)
        about = describe(given, tools)
        print_description(about)
        measure(given, tools, results)
    except KeyboardInterrupt:
        print("bench: interrupted; what was measured until then:", file=sys.stderr)
        code = 130
    except TimeoutError:
        results.problems.append(f"given up after {AT_MOST[given.smoke]} s")
    finally:
        end_all(tools.child)
        shutil.rmtree(tools.directory)
    rows, costs = results.rows(given.tests, judged=not given.smoke), results.costs()
    if rows:
        print("\n" + report.table(rows))
    if costs:
        print("\n" + report.cost_table(costs))
    if not given.smoke and rows:
        print("\n" + report.summary(rows))
    for note in results.notes:
        print(f"note: {note}")
    for problem in results.problems:
        print(f"PROBLEM: {problem}")
    if given.json:
        everything = about | {"rows": rows, "costs": costs, "notes": results.notes, "problems": results.problems}
        given.json.write_text(json.dumps(everything, indent=1) + "\n")
    return code or int(bool(results.problems))


if __name__ == "__main__":
    sys.exit(main())
