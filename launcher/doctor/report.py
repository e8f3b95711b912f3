"""What an examination has come to: as JSON, as text for a person, as an exit status."""

from __future__ import annotations

import dataclasses
import json
import shlex
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.doctor.facts import ABSENT, Clock, Gpu, NodeFacts, Room
from launcher.doctor.findings import Finding, to_leave_out
from launcher.doctor.links import Link, speed_text, time_text
from launcher.plan.report import bytes_text
from launcher.terminal import Display
from recipes.recipe import Recipe

# Of the many packages, those that people ask for.
_SHOWN = ("python", "shoal", "torch", "deepspeed", "transformers", "peft", "ray", "bitsandbytes")
_WIDTH = 100
_INDENT = " " * 9
# Each pair in a line of its own up to here; of more the range tells more.
_MOST_PAIRS = 6
_COLUMNS = ("node", "cores", "memory", "free", "GPUs", "/dev/shm", "disk free", "clock", "files")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    nodes: tuple[NodeFacts, ...]
    links: tuple[Link, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def status(self) -> int:
        """The command's exit status: 1 when there is an error, warnings are allowed."""
        return int(self.errors > 0)

    @property
    def leave_out(self) -> list[str]:
        """The nodes that a run had better do without."""
        return to_leave_out(self.findings, [facts.node for facts in self.nodes])


def override(report: Report, recipe: Recipe) -> str:
    """What makes `shoal submit` leave out the bad nodes, and those that the recipe leaves out."""
    nodes = sorted({*recipe.slurm.exclude, *report.leave_out})
    return f"slurm.exclude=[{','.join(nodes)}]"


def to_json(report: Report, recipe: Recipe | None, *, indent: int | None = 2) -> str:
    made = {
        "status": report.status,
        "leave_out": report.leave_out,
        # Always there and always valid, so that a script can hand it on as it is.
        "override": override(report, recipe) if recipe and _takes_nodes(recipe) else None,
        **dataclasses.asdict(report),
    }
    return json.dumps(made, indent=indent)


def from_json(text: str) -> Report:
    made = json.loads(text)
    return Report(
        nodes=tuple(_facts(node) for node in made["nodes"]),
        links=tuple(Link(**{**link, "nodes": tuple(link["nodes"])}) for link in made["links"]),
        findings=tuple(Finding(**finding) for finding in made["findings"]),
    )


def _facts(made: dict[str, Any]) -> NodeFacts:
    return NodeFacts(
        **{
            **made,
            "unmet": tuple(made["unmet"]),
            "gpus": tuple(Gpu(**gpu) for gpu in made["gpus"]),
            "rooms": {key: Room(**room) for key, room in made["rooms"].items()},
            "clock": Clock(**made["clock"]) if made["clock"] is not None else None,
        }
    )


def _takes_nodes(recipe: Recipe) -> bool:
    return recipe.cluster.kind == "slurm"


def show(report: Report, display: Display, *, recipe: Recipe | None, reference: str) -> None:
    """The table of nodes, the network, every finding with its remedy, and the verdict."""
    for line in _versions(report.nodes):
        display.line(line)
    display.line("")
    display.table("", _COLUMNS, [_row(facts) for facts in report.nodes])
    display.line("")
    for line in _network(report.links):
        display.line(line)
    for finding in sorted(report.findings, key=lambda one: (one.severity, one.node or "")):
        for line in _lines(finding):
            display.line(line)
    display.line(_verdict(report))
    if report.leave_out and recipe is not None and _takes_nodes(recipe):
        told = shlex.join(["shoal", "submit", reference, override(report, recipe)])
        display.line(f"Leave out: {told}")


def _versions(nodes: Sequence[NodeFacts]) -> Iterator[str]:
    """What all have; where they differ, the findings tell."""
    if not nodes:
        return
    first = nodes[0]
    same = {
        name: first.versions.get(name, ABSENT)
        for name in _SHOWN
        if len({facts.versions.get(name) for facts in nodes}) == 1
    }
    built = {facts.cuda for facts in nodes}
    cuda = [f"CUDA {first.cuda or 'none'}"] if len(built) == 1 else []
    where = f"On all {len(nodes)} nodes: " if len(nodes) > 1 else f"{first.node}: "
    words = [f"{name} {value}" for name, value in same.items()] + cuda
    yield from textwrap.wrap(where + ", ".join(words), _WIDTH, subsequent_indent="  ")


def _row(facts: NodeFacts) -> list[str]:
    kinds = {gpu.name for gpu in facts.gpus}
    room = facts.rooms.get("storage.path") or facts.rooms.get("storage.cache")
    clock = facts.clock
    return [
        facts.node,
        str(facts.cpus),
        bytes_text(facts.memory_bytes),
        bytes_text(facts.available_bytes),
        f"{facts.offered_gpus} {'/'.join(sorted(kinds))}".rstrip() if kinds else "none",
        bytes_text(facts.shm_bytes),
        bytes_text((room or facts.rooms["/tmp"]).free_bytes),
        "" if clock is None else f"{clock.ahead_s:+.3f} s",
        f"{facts.open_files:,}",
    ]


def _network(links: Sequence[Link]) -> Iterator[str]:
    if not links:
        return
    if len(links) <= _MOST_PAIRS:
        for link in links:
            yield f"{link.nodes[0]} – {link.nodes[1]}: {_way(link)}"
    else:
        yield f"Between {len(links)} pairs of nodes, lowest, median and highest:"
        latencies = sorted(one.latency_s for one in links if one.latency_s is not None)
        speeds = sorted(one.bytes_per_s for one in links if one.bytes_per_s is not None)
        for what, found, text in (
            ("round trip", latencies, time_text),
            ("all-reduce", speeds, speed_text),
        ):
            if found:
                three = (found[0], statistics.median(found), found[-1])
                yield f"  {what}: {', '.join(text(one) for one in three)}"
    yield ""


def _way(link: Link) -> str:
    parts = []
    if link.latency_s is not None:
        parts.append(f"round trip {time_text(link.latency_s)}")
    if link.bytes_per_s is not None:
        parts.append(f"all-reduce {speed_text(link.bytes_per_s)}")
    return ", ".join(parts) or "not measured"


def _lines(finding: Finding) -> Iterator[str]:
    where = f"{finding.node}: " if finding.node is not None else ""
    head = f"{finding.severity:<8} {where}{finding.what}"
    yield from textwrap.wrap(head, _WIDTH, subsequent_indent=_INDENT)
    if finding.remedy:
        yield from textwrap.wrap(
            finding.remedy, _WIDTH, initial_indent=f"{_INDENT}→ ", subsequent_indent=f"{_INDENT}  "
        )


def _verdict(report: Report) -> str:
    nodes = "1 node" if len(report.nodes) == 1 else f"{len(report.nodes)} nodes"
    warnings = len(report.findings) - report.errors
    if not report.findings:
        return f"No problems on {nodes}"
    counted = [
        f"{count} {word}{'s' if count > 1 else ''}"
        for count, word in ((report.errors, "error"), (warnings, "warning"))
        if count
    ]
    good = "" if report.errors else "; nothing that ends a run"
    return f"{' and '.join(counted)} on {nodes}{good}"
