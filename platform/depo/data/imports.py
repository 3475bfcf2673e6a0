"""Trajectories from other tools' files.

Whatever the format, a row becomes one conversation, or the two of a pair, and what the row tells of the
episode; these become trajectories. What a row lacks is filled in as `import_trajectories` says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from depo.config.base import ConfigError
from depo.config.schema import AnnotationConfig
from depo.data.conversations import FORMATS as IMPORTS
from depo.data.conversations import Conversation, conversations_of, unread_labels
from depo.data.labels import label_all
from depo.data.rows import BadRow, rows_of, shown
from depo.data.store import write_table
from depo.policies.base import parse_reply
from depo.records import ContextTurn, Step, Task, Told, Trajectory, content_hash

__all__ = ["IMPORTED", "IMPORTS", "import_trajectories"]

IMPORTED = "imported.parquet"
_TASK_ID = re.compile(r"(?P<env>[^/]+)/(?P<level>.*)/(?P<seed>0|-?[1-9][0-9]{0,18})", re.DOTALL)
_ITEM_ID = re.compile(r"(?P<level>.*?)[_-]?(?P<seed>0|[1-9][0-9]{0,17})", re.DOTALL)
_NAMED = 3
"""Skipped rows that are named; the others are counted."""


def import_trajectories(
    path: Path,
    format_: str,
    env: str,
    out_dir: Path,
    on_bad_row: Literal["refuse", "skip"] = "refuse",
    label: str = "",
    say: Callable[[str], None] = print,
) -> int:
    """Read a file of one of `IMPORTS` into trajectories of environment `env` in `out_dir`; their number.

    The annotate stage reads them. A row's return is its `reward`, else 1 or 0 by its label, else by its
    `success`, else 1 (a demonstration); a success is what `success` says, else a return above 0. A task is
    named by `task_id` or `item_id`, and rows without one are of the same task where they begin alike.
    Thoughts and actions are read from the replies. `label` is as `conversations_of` has it. `say` gets a
    line on each thing that the file's owner should know.

    Raises `ConfigError` naming file and row for a row that is malformed, unless `on_bad_row` is "skip",
    and for a column that looks like a label and is not read.
    """
    taken: list[tuple[int, Conversation, Trajectory]] = []
    bad: list[tuple[int, str]] = []
    for number, row in rows_of(path):
        try:
            if isinstance(row, BadRow):
                raise row
            for conversation in conversations_of(row, format_, label):
                if not label and (unread := unread_labels(row, conversation)):
                    raise ConfigError(
                        f"{path}: row {number}: the column {shown(unread[0])} looks like a label and is not "
                        "read; name it with --label (true is desirable), or say --label none"
                    )
                taken.append((number, conversation, _trajectory(conversation, env)))
        except BadRow as error:
            bad.append((number, str(error)))
            if on_bad_row == "refuse":
                break
    if any(conversation.told for _, conversation, _ in taken):
        silent = [number for number, conversation, _ in taken if not conversation.told]
        bad += [(n, "tells no label, reward or success, as other rows do; complete it") for n in silent]
        taken = [one for one in taken if one[1].told]
    if bad and on_bad_row == "refuse":
        number, problem = min(bad)
        raise ConfigError(f"{path}: row {number}: {problem}")
    if not taken:
        lacks = (
            f"none of {len(bad)} rows can be taken, row {bad[0][0]}: {bad[0][1]}" if bad else "holds no row"
        )
        raise ConfigError(f"{path}: {lacks}; give a file with at least one conversation")
    if label not in ("", "none") and not any(conversation.label for _, conversation, _ in taken):
        raise ConfigError(f"{path}: --label {label}: no row has this column; check its name")
    trajectories = _numbered(taken)
    write_table(out_dir / IMPORTED, trajectories, Trajectory)
    for line in [*_skipped(bad), *_findings(taken), *_labels(trajectories)]:
        say(line)
    return len(trajectories)


def _trajectory(conversation: Conversation, env: str) -> Trajectory:
    system, steps = _steps(conversation)
    reward = conversation.reward
    if reward is None:
        judged = conversation.success if conversation.label is None else conversation.label == "D"
        reward = float(judged is not False)
    steps[-1] = replace(steps[-1], reward=reward)
    begins = [turn for context in steps[0].context for turn in (context.observation, context.text)]
    tokens = conversation.total_tokens
    return Trajectory(
        task=_task(conversation.task, env, [system, *begins, steps[0].observation]),
        policy="imported",
        tokenizer="",
        system=system,
        steps=tuple(steps),
        reward=reward,
        success=reward > 0 if conversation.success is None else conversation.success,
        stop_reason="terminated",
        told=Told(
            conversation.label,
            None if conversation.steps is None else int(conversation.steps),
            None if tokens is None else int(tokens),
        ),
    )


def _steps(conversation: Conversation) -> tuple[str, list[Step]]:
    """System prompt and steps; raises `BadRow` where user and assistant do not take turns."""
    chat = list(conversation.messages)
    system = chat.pop(0).text if chat and chat[0].role == "system" else ""
    before = len(conversation.messages) - len(chat)
    for place, message in enumerate(chat):
        role = "user" if message.role == "tool" else message.role
        if role != ("user", "assistant")[place % 2]:
            raise BadRow(
                f"message {place + before + 1} is of role {role!r}; after an optional system message user "
                "and assistant must alternate, the user first"
            )
    if not chat or len(chat) % 2:
        raise BadRow(
            "the conversation must end with an assistant's message; complete it or leave the row out"
        )
    steps: list[Step] = []
    context: list[ContextTurn] = []
    for seen, said in zip(chat[::2], chat[1::2], strict=True):
        if not said.own:
            context.append(ContextTurn(seen.text, said.text))
            continue
        thought, action, malformed = parse_reply(said.text)
        steps.append(
            Step(
                observation=seen.text,
                text=said.text,
                thought=thought,
                action=action,
                reward=0.0,
                valid=not malformed,
                malformed=malformed,
                # Nobody knows the tokens of whoever wrote it; samples count by the student's tokenizer.
                num_tokens=len(said.text.split()),
                context=tuple(context),
            )
        )
        context = []
    if not steps:
        raise BadRow("no message is the agent's own: every assistant's is context; leave the row out")
    return system, steps


def _task(name: str, env: str, begins: list[str]) -> Task:
    match = _TASK_ID.fullmatch(name)
    if match and -(2**63) <= int(match["seed"]) < 2**63:
        if match["env"] != env:
            raise BadRow(
                f"the task {shown(name)} is of environment {shown(match['env'])}, not of {env!r}; check --env"
            )
        return Task(env, match["level"], int(match["seed"]), "train")
    if match := _ITEM_ID.fullmatch(name):
        return Task(env, match["level"] or "imported", int(match["seed"]), "train")
    return Task(env, "imported", int(content_hash([name, *begins], length=8), 16) >> 1, "train")


def _numbered(taken: Sequence[tuple[int, Conversation, Trajectory]]) -> list[Trajectory]:
    """The trajectories, each with its number among those of its task; a side of several pairs is one."""
    counts: Counter[str] = Counter()
    sides: set[Trajectory] = set()
    numbered = []
    for _, conversation, trajectory in taken:
        if conversation.paired and trajectory in sides:
            continue
        sides.add(trajectory)
        numbered.append(replace(trajectory, index=counts[trajectory.task.id]))
        counts[trajectory.task.id] += 1
    return numbered


def _skipped(bad: Sequence[tuple[int, str]]) -> list[str]:
    if not bad:
        return []
    named = "; ".join(f"row {number}: {problem}" for number, problem in sorted(bad)[:_NAMED])
    return [f"{len(bad)} rows skipped: {named}" + ("; ..." if len(bad) > _NAMED else "")]


def _findings(taken: Sequence[tuple[int, Conversation, Trajectory]]) -> list[str]:
    """A line each on openings taken as context, on what is not read, and on counts that are not ours."""
    lines = []
    opened = sum(conversation.acknowledged for _, conversation, _ in taken)
    if opened:
        lines.append(
            f"{opened} rows begin with an answer that takes note of the instructions: context, no step"
        )
    unread = Counter(name for _, conversation, _ in taken for name in conversation.unread)
    lines += [
        f"`{name}` of {count} rows is not read; write what the agent must know of it into the system prompt"
        for name, count in unread.items()
    ]
    steps: dict[int, tuple[float, float]] = {}
    means: dict[int, tuple[float, float]] = {}
    for number, told, trajectory in taken:
        ours = trajectory.num_steps
        if told.steps is not None and told.steps != ours:
            steps[number] = (told.steps, ours)
        if told.avg_tokens_per_step is not None and told.total_tokens is not None:
            mean = told.total_tokens / ours
            rounding = 0.5 if told.avg_tokens_per_step.is_integer() else 0.05
            if abs(told.avg_tokens_per_step - mean) > rounding:
                means[number] = (told.avg_tokens_per_step, mean)
    lines += _differences("`steps`", "turns of the agent", steps, len(taken))
    lines += _differences("`avg_tokens_per_step`", "`total_tokens` over these", means, len(taken))
    return lines


def _differences(name: str, ours: str, pairs: Mapping[int, tuple[float, float]], rows: int) -> list[str]:
    if not pairs:
        return []
    most = max(pairs, key=lambda number: abs(pairs[number][0] - pairs[number][1]))
    told, counted = pairs[most]
    return [
        f"{name} differs from the {ours} in {len(pairs)} of {rows} rows, most in row {most}: "
        f"{told:g}, not {counted:g}"
    ]


def _labels(trajectories: Sequence[Trajectory]) -> list[str]:
    """A line on labels that the published rules would set otherwise."""
    changed = label_all(trajectories, AnnotationConfig())[1].get("rules_differ", 0)
    if not changed:
        return []
    labelled = sum(bool(t.told and t.told.label) for t in trajectories)
    return [
        f"{labelled} labels are obeyed; the published rules would change {changed} of them "
        "(annotation.<round>.imported: rules)"
    ]
