"""Trajectories and search trees as static files that a browser opens without a server.

A page opened from the disk may run scripts that lie beside it and may read no other file. So the data
are scripts too, each a call with one JSON value: `catalogue.js` names the sources; a source has an index
of its tasks and chunks of whole tasks, and the page loads them when it needs them. Index and chunks are
named by their content: a page that was opened before the files were written anew finds its old data or
none, never others.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from depo.config.base import ConfigError
from depo.evaluation.metrics import success_definition
from depo.records import Step, Trajectory

ASSETS = Path(__file__).parent / "viewer_page"
INDEX = "index.html"
CHUNK_CHARACTERS = 250_000
"""A chunk is closed once it has so many: some milliseconds to load, and few files."""
INVALID, MALFORMED, REPEATED = 1, 2, 4
"""Marks of a turn, added up."""
_GOAL_CHARACTERS = 120


@dataclass(frozen=True)
class Source:
    """One policy on one task set, or one round of generation."""

    key: str
    """Names it in links, such as "bc" or "round:teacher"."""
    group: str
    """The heading it stands below."""
    label: str
    trajectories: Callable[[], Iterable[Trajectory]]
    """Reads them; those of one task follow each other."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Trajectory id to the label ("D" or "U") that annotation gave it."""
    success_reward: float | None = None
    """A return of at least this is a success; None leaves it to the environment."""
    plain: Callable[[Trajectory], Sequence[str]] | None = None
    """Observations without what turn control added to them; None where it added nothing."""


@dataclass(frozen=True)
class Written:
    """What `write_view` made."""

    index: Path
    """The page to open."""
    sources: int
    tasks: int
    trajectories: int
    bytes: int
    """Of all files."""


def write_view(out_dir: Path, name: str, sources: Iterable[Source]) -> Written:
    """Write the viewer of a run called `name` below `out_dir`; what an earlier call wrote is replaced.

    A reader sees the old data or the new: the catalogue is written after what it names, and old data go
    last. Raises what reading a source raises, and `ConfigError` where the folder cannot be written.
    """
    data = out_dir / "data"
    with _writing(data):
        data.mkdir(parents=True, exist_ok=True)
    entries = []
    for source in sources:
        entry = _SourceWriter(source, data).write()
        if entry["rollouts"]:
            entries.append(entry)
    with _writing(out_dir):
        for asset in sorted(ASSETS.iterdir()):
            shutil.copyfile(asset, out_dir / asset.name)
    # An index names its chunks, the catalogue the indices.
    kept = {f"{name}.js" for entry in entries for name in (entry["index"], *entry.pop("chunks"))}
    catalogue = _json({"name": name, "sources": entries})
    _write(out_dir / "catalogue.js", f"viewer.catalogue({catalogue});\n")
    with _writing(data):
        for file in data.iterdir():
            if file.name not in kept:
                file.unlink()
    return Written(
        index=out_dir / INDEX,
        sources=len(entries),
        tasks=sum(entry["tasks"] for entry in entries),
        trajectories=sum(entry["rollouts"] for entry in entries),
        bytes=sum(file.stat().st_size for file in out_dir.rglob("*") if file.is_file()),
    )


def marks(steps: Sequence[Step], observations: Sequence[str]) -> list[int]:
    """What is wrong with each turn, as the sum of INVALID or MALFORMED, and REPEATED.

    A turn is repeated that does again, at the same one of `observations`, what an earlier turn did there.
    """
    seen: set[tuple[str, str]] = set()
    found = []
    for step, observation in zip(steps, observations, strict=True):
        turn = (observation, step.action or step.text)
        wrong = MALFORMED if step.malformed else 0 if step.valid else INVALID
        found.append(wrong + REPEATED * (turn in seen))
        seen.add(turn)
    return found


class _Strings:
    """Distinct strings by number: observations and goals come again and again."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.characters = 0

    def number(self, text: str) -> int:
        known = self._numbers.get(text)
        if known is None:
            known = self._numbers[text] = len(self._numbers)
            self.characters += len(text)
        return known

    @property
    def all(self) -> list[str]:
        return list(self._numbers)


class _SourceWriter:
    """Writes one source's chunks as they fill, then its index."""

    def __init__(self, source: Source, data: Path) -> None:
        self._source, self._data = source, data
        self._levels, self._goals, self._stops = _Strings(), _Strings(), _Strings()
        self._chunks: list[str] = []
        self._tasks: list[list[Any]] = []
        self._bytes = 0
        self._begin_chunk()

    def write(self) -> dict[str, Any]:
        """The source's row in the catalogue, with the names of its chunks under "chunks"."""
        task: list[Trajectory] = []
        for trajectory in self._source.trajectories():
            if task and trajectory.task.id != task[0].task.id:
                self._add(task)
                task = []
            task.append(trajectory)
        if task:
            self._add(task)
        self._end_chunk()
        levels = self._levels.all
        self._tasks.sort(key=lambda row: (levels[row[1]], row[2]))
        value = {
            "chunks": self._chunks,
            "levels": levels,
            "goals": self._goals.all,
            "stops": self._stops.all,
            "tasks": self._tasks,
        }
        return {
            "key": self._source.key,
            "group": self._source.group,
            "label": self._source.label,
            "success": success_definition(self._source.success_reward),
            "tasks": len(self._tasks),
            "rollouts": sum(len(row[-1]) for row in self._tasks),
            "index": self._put(value),
            "bytes": self._bytes,
            "chunks": self._chunks,
        }

    def _begin_chunk(self) -> None:
        self._texts = _Strings()
        self._rollouts: list[list[dict[str, Any]]] = []
        self._turns = 0

    def _end_chunk(self) -> None:
        if self._rollouts:
            self._chunks.append(self._put({"texts": self._texts.all, "tasks": self._rollouts}))
        self._begin_chunk()

    def _add(self, task: Sequence[Trajectory]) -> None:
        """One task with all its trajectories, as a row of the index and an entry of the chunk."""
        first = task[0]
        rollouts = [self._rollout(trajectory) for trajectory in task]
        summaries = [self._summary(rollout) for rollout in rollouts]
        where = (len(self._chunks), len(self._rollouts))
        goal = _goal(first.steps[0].observation) if first.steps else ""
        row = [
            first.task.id,
            self._levels.number(first.task.level),
            first.task.seed,
            self._goals.number(goal),
            *where,
            summaries,
        ]
        self._tasks.append(row)
        self._rollouts.append(rollouts)
        self._turns += sum(len(trajectory.steps) for trajectory in task)
        # A turn's numbers take some 40 characters beside its texts.
        if self._texts.characters + 40 * self._turns >= CHUNK_CHARACTERS:
            self._end_chunk()

    def _rollout(self, trajectory: Trajectory) -> dict[str, Any]:
        """One trajectory as the page reads it; texts by number, values left out where there are none."""
        text = self._texts.number
        plain = self._source.plain
        seen = plain(trajectory) if plain else [step.observation for step in trajectory.steps]
        turns = zip(trajectory.steps, marks(trajectory.steps, seen), strict=True)
        found: dict[str, Any] = {
            "id": trajectory.id,
            "index": trajectory.index,
            "seed": trajectory.seed,
            "policy": text(trajectory.policy),
            "system": text(trajectory.system),
            "reward": round(trajectory.reward, 6),
            "success": self._succeeded(trajectory),
            "stop": trajectory.stop_reason,
            "final": text(trajectory.final_observation),
            "steps": [self._turn(step, mark) for step, mark in turns],
        }
        if trajectory.error:
            found["error"] = text(trajectory.error)
        if trajectory.nodes:
            values = [round(value, 4) for value in trajectory.values]
            found |= {"nodes": trajectory.nodes, "visits": trajectory.visits, "values": values}
        label = self._source.labels.get(trajectory.id)
        return found | ({"label": label} if label else {})

    def _succeeded(self, trajectory: Trajectory) -> bool:
        """As `evaluation.metrics.judged` has it."""
        least = self._source.success_reward
        reached = trajectory.success if least is None else trajectory.reward >= least
        return reached and trajectory.stop_reason != "error"

    def _turn(self, step: Step, mark: int) -> list[Any]:
        """[observation, thought, action, reward, marks, tokens, input tokens, log-prob, reply].

        The reply's whole text stands there only where thought and action do not say it all.
        """
        text = self._texts.number
        usual = step.text == f"Thought: {step.thought}\nAction: {step.action}"
        logprob = None if step.logprob is None else round(step.logprob, 2)
        return [
            text(step.seen), text(step.thought), text(step.action), round(step.reward, 6), mark,
            step.num_tokens, step.input_tokens, logprob, None if usual else text(step.text),
        ]  # fmt: skip

    def _summary(self, rollout: Mapping[str, Any]) -> list[Any]:
        """[tokens, turns, reward, success, stop reason, marks of any turn, label] for lists."""
        wrong = 0
        for turn in rollout["steps"]:
            wrong |= turn[4]
        return [
            sum(turn[5] for turn in rollout["steps"]), len(rollout["steps"]), rollout["reward"],
            int(rollout["success"]), self._stops.number(rollout["stop"]), wrong, rollout.get("label", ""),
        ]  # fmt: skip

    def _put(self, value: Any) -> str:
        """Write one value as a script of its own; its name."""
        text = _json(value)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._bytes += _write(self._data / f"{name}.js", f'viewer.data("{name}",{text});\n')
        return name


def _goal(observation: str) -> str:
    """What a task is about, for a list: the first line the agent saw, cut."""
    line = next((line.strip() for line in observation.splitlines() if line.strip()), "")
    return line if len(line) <= _GOAL_CHARACTERS else f"{line[: _GOAL_CHARACTERS - 1]}…"


def _json(value: Any) -> str:
    """Every JSON text is an expression of JavaScript too."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _write(path: Path, text: str) -> int:
    """Write a whole file or none; its bytes."""
    content = text.encode()
    partial = path.with_name(f".{path.name}.partial")
    with _writing(path.parent):
        partial.write_bytes(content)
        os.replace(partial, path)
    return len(content)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"view: {folder} cannot be written ({reason}); make room or name another folder by --out"
        ) from None
