"""What was measured, as a table for people and as JSON. Knows no process."""

import statistics
from dataclasses import dataclass, field

from measures import Row, Test

COSTS = {
    "pss": "memory (PSS), MiB",
    "memfds": "memory files beside it, MiB",
    "disk": "state directory, MiB",
    "keeper_descriptors": "descriptors of the keeper",
    "supervisor_descriptors": "descriptors of the supervisor",
    "threads": "threads",
    "switches": "context switches in 30 s",
    "cpu": "processor time in 30 s, s",
}


def number(value: float) -> str:
    """Three digits, or all of a large one."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}" if value else "0"


@dataclass
class Results:
    """Samples by test, number of children, row and supervisor."""

    samples: dict[tuple[str, int, str], dict[str, list[float]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # of the floor or laneway
    notes: list[str] = field(default_factory=list)  # of others

    def add(self, test: str, count: int, subject: str, samples: dict[str, list[float]]) -> None:
        """One round's."""
        for key, values in samples.items():
            self.samples.setdefault((test, count, key), {}).setdefault(subject, []).extend(values)

    def rows(self, tests: list[Test], judged: bool) -> list[dict]:
        """One entry per row and number of children, in the order of the tests; with goals, if it shall be judged."""
        found = []
        for test in tests:
            counts = sorted({count for name, count, _ in self.samples if name == test.name})
            for row in test.rows:
                for count in counts:
                    if of := self.samples.get((test.name, count, row.key)):
                        found.append(entry(test, row, count, of, row.goals.get(count) if judged else None))
        return found

    def costs(self) -> dict[str, dict[int, float]]:
        """What laneway takes, by the number of children."""
        return {
            what: found
            for key, what in COSTS.items()
            if (
                found := {
                    count: statistics.median(of["laneway"])
                    for (test, count, found_key), of in sorted(self.samples.items())
                    if test == "idle" and found_key == key and "laneway" in of
                }
            )
        }


def entry(test: Test, row: Row, count: int, of: dict[str, list[float]], goal: float | None) -> dict:
    """A row with what every supervisor did."""
    medians = {name: statistics.median(values) for name, values in of.items()}
    floor = medians.get("floor")
    subjects = {
        name: {
            "min": min(values),
            "median": medians[name],
            "max": max(values),
            "of_floor": medians[name] / floor if floor else None,
            "samples": values,
        }
        for name, values in of.items()
    }
    result = {"test": test.name, "row": row.key, "what": row.what, "unit": row.unit, "children": count}
    result |= {"goal": goal, "goal_is_share_of_floor": row.of_floor, "met": None, "subjects": subjects}
    if goal is not None and "laneway" in of:
        share = subjects["laneway"]["of_floor"]
        result["met"] = (share is not None and share >= goal) if row.of_floor else medians["laneway"] <= goal
    return result


def title(row: dict) -> str:
    """A row's in one line."""
    children = f", N={row['children']}" if row["children"] else ""
    return f"{row['what']}{children}" + (f" [{row['unit']}]" if row["unit"] else "")


def verdict(row: dict) -> str:
    """What the goal says, in words."""
    if row["met"] is None:
        return ""
    wanted = f"goal: at least {row['goal']:g} x floor" if row["goal_is_share_of_floor"] else f"goal {row['goal']:g}"
    return f"{wanted}: {'met' if row['met'] else 'MISSED'}"


def table(rows: list[dict]) -> str:
    """For people."""
    lines = [f"{'':24}{'min':>9}{'median':>9}{'max':>9}{'x floor':>9}"]
    for row in rows:
        lines.append(title(row))
        for name, of in row["subjects"].items():
            share = number(of["of_floor"]) if of["of_floor"] is not None else "-"
            figures = "".join(f"{number(of[key]):>9}" for key in ("min", "median", "max"))
            said = f"  {verdict(row)}" if name == "laneway" else ""
            lines.append(f"  {name:22}{figures}{share:>9}{said}".rstrip())
    return "\n".join(lines)


def cost_table(costs: dict[str, dict[int, float]]) -> str:
    """What each instance costs: the last column is the slope from the fewest to the most."""
    counts = sorted({count for of in costs.values() for count in of})
    lines = [f"{'what laneway takes':32}" + "".join(f"{f'N={count}':>9}" for count in counts) + f"{'for each':>12}"]
    for what, of in costs.items():
        low, high = min(of), max(of)
        slope = f"{(of[high] - of[low]) / (high - low):.4f}" if high > low else "-"
        lines.append(f"{what:32}" + "".join(f"{number(of[c]) if c in of else '-':>9}" for c in counts) + f"{slope:>12}")
    return "\n".join(lines)


def summary(rows: list[dict]) -> str:
    """How many goals were met, and which were not."""
    judged = [row for row in rows if row["met"] is not None]
    missed = [title(row) for row in judged if not row["met"]]
    if not judged:
        return "goals: none for what was measured"
    return "\n".join([f"goals: {len(judged) - len(missed)} of {len(judged)} met", *(f"  missed: {t}" for t in missed)])
