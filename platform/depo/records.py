"""The records that cross from one stage to the next, and their Arrow schemas.

Everything a stage hands on is one of these frozen dataclasses, written as a row of a Parquet
table whose schema stands here by name. A record holds what happened; whatever can be derived
from it (labels' counts, metrics, bonuses) is derived where it is used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import pyarrow as pa

SCHEMA_VERSION = 4

# The version at which a record took its present form; older files of it are read no more.
_SINCE = {"Trajectory": 1, "Sample": 2, "ReferenceLogProbs": 2, "Episode": 3}

Label = Literal["D", "U"]
StopReason = Literal["terminated", "max_steps", "early_stop", "error"]


def content_hash(value: Any, length: int = 16) -> str:
    """Hex digest of `value`'s canonical JSON; equal content gives an equal hash in every process."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


class _Row:
    """Conversion between a frozen dataclass and the plain dict that is its Arrow row."""

    def to_row(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in row.items() if name in names})


@dataclass(frozen=True)
class Task(_Row):
    """One thing to do: an environment's id, a level in it, and the seed of its start state."""

    env: str
    level: str
    seed: int
    split: str
    """"train", "validation" or "test"."""

    @property
    def id(self) -> str:
        return f"{self.env}/{self.level}/{self.seed}"


@dataclass(frozen=True)
class ContextTurn(_Row):
    """A turn of a conversation that is not the agent's own: it is read, and neither trained on nor a step."""

    observation: str
    text: str
    """What was answered in the agent's place."""


@dataclass(frozen=True)
class Step(_Row):
    """One turn of the agent: what it saw, what it thought and did, what came of it."""

    observation: str
    """The text shown to the agent before this turn."""
    text: str
    """The whole reply as generated."""
    thought: str
    action: str
    reward: float
    """Reward paid by the environment on this turn."""
    valid: bool
    """The environment could carry the action out."""
    malformed: bool
    """The reply had no readable action."""
    num_tokens: int
    """Tokens the policy generated for this turn, by its own tokenizer, end-of-turn excluded."""
    input_tokens: int = 0
    """Tokens of the context the policy read for this turn."""
    token_ids: tuple[int, ...] = ()
    """The generated ids, end-of-turn included; empty where the policy has no tokenizer."""
    logprob: float | None = None
    """Sum of the log-probs of `token_ids` under the policy at temperature 1."""
    context: tuple[ContextTurn, ...] = ()
    """Turns that are not the agent's own, between its last one and `observation`."""

    @property
    def seen(self) -> str:
        """All that the agent reads before this turn, as one text for a reader."""
        return "\n".join(
            [*(f"{turn.observation}\n[context] {turn.text}" for turn in self.context), self.observation]
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        context = tuple(ContextTurn.from_row(turn) for turn in row["context"] or ())
        return super().from_row({**row, "token_ids": tuple(row["token_ids"] or ()), "context": context})


@dataclass(frozen=True)
class Told(_Row):
    """What the file of another tool tells of an episode; None is not told."""

    label: Label | None = None
    steps: int | None = None
    tokens: int | None = None
    """Tokens of all the agent's turns, by whatever tokenizer the file's author had."""


@dataclass(frozen=True)
class Trajectory(_Row):
    """One finished episode, from the start of its task to its end; a failed one too."""

    task: Task
    policy: str
    """Name of the policy that acted."""
    tokenizer: str
    """Fingerprint of the tokenizer behind `Step.token_ids`; empty where there is none."""
    system: str
    """The system prompt the agent was given."""
    steps: tuple[Step, ...]
    reward: float
    """Return of the episode."""
    success: bool
    stop_reason: StopReason
    error: str = ""
    final_observation: str = ""
    nodes: tuple[int, ...] = ()
    """Ids of the tree nodes that the steps went through; shorter than `steps` below the tree."""
    visits: tuple[int, ...] = ()
    """Visit counts of `nodes` when the search ended."""
    values: tuple[float, ...] = ()
    """Mean returns of `nodes` when the search ended."""
    index: int = 0
    """Which rollout of its search this was."""
    seed: int = 0
    told: Told | None = None
    """What the file tells that it was imported from; None where it was not imported."""

    @property
    def id(self) -> str:
        """Content hash of what was done: task, policy, replies, rollout index and seed."""
        done = [self.task.id, self.policy, [s.text for s in self.steps], self.index, self.seed]
        return content_hash(done)

    @property
    def num_steps(self) -> int:
        return len(self.steps)

    @property
    def num_tokens(self) -> int:
        return sum(step.num_tokens for step in self.steps)

    def to_row(self) -> dict[str, Any]:
        return {"id": self.id, **super().to_row()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        return super().from_row(
            {
                **row,
                "task": Task.from_row(row["task"]),
                "steps": tuple(Step.from_row(step) for step in row["steps"]),
                "nodes": tuple(row["nodes"] or ()),
                "visits": tuple(row["visits"] or ()),
                "values": tuple(row["values"] or ()),
                "told": Told.from_row(row["told"]) if row["told"] else None,
            }
        )


@dataclass(frozen=True)
class Sample(_Row):
    """A labelled trajectory as the student trains on it: ids, and whose they are.

    `view` says which thoughts a desirable trajectory carries: "raw" as they were generated,
    "rephrased" after shortening. Each view is complete: undesirable trajectories, which are
    never rephrased, stand in both.
    """

    id: str
    trajectory_id: str
    task_id: str
    env: str
    level: str
    policy: str
    label: Label
    view: str
    reward: float
    success: bool
    num_steps: int
    num_tokens: int
    """The agent's own tokens by the student's tokenizer, end-of-turn excluded."""
    token_ids: tuple[int, ...]
    agent_mask: tuple[int, ...]
    """Whose each of `token_ids` is: 0 not the agent's, 1 the agent's thought, 2 its action.

    The action begins with the token in which the reply's "Action:" begins, and the end-of-turn belongs
    to it. A malformed reply has no action: its text is all thought, its end-of-turn still 2.
    """
    prompt_length: int
    """Number of ids before the agent's first token."""
    kl_partner: str
    """Id of the sample whose completion, after this sample's prompt, estimates the KL."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        ids, mask = tuple(row["token_ids"]), tuple(row["agent_mask"])
        return super().from_row({**row, "token_ids": ids, "agent_mask": mask})


@dataclass(frozen=True)
class ReferenceLogProbs(_Row):
    """Log-probs (nats) of the agent's own tokens under the reference policy, in order.

    So one table serves every choice of trained tokens and every weight of a turn.
    """

    sample_id: str
    logps: tuple[float, ...]
    """Of the sample: one for each token where `agent_mask` is not 0, the very first token aside."""
    kl_logps: tuple[float, ...]
    """Of the sample's KL pair: its own prompt, then its partner's completion."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        logps, kl_logps = tuple(row["logps"]), tuple(row["kl_logps"])
        return super().from_row({**row, "logps": logps, "kl_logps": kl_logps})


@dataclass(frozen=True)
class Episode(_Row):
    """One evaluation episode, as the metrics see it."""

    method: str
    decoding: str
    """"sampled" or "greedy"."""
    task_id: str
    level: str
    success: bool
    reward: float
    num_tokens: int
    num_steps: int
    input_tokens: int
    stop_reason: str
    trajectory_id: str
    seed: int = 0
    """Of the draws; each task is tried once with each seed."""
    suite: str = ""
    """The task set; "" is the evaluation's own."""
    invalid: int = 0
    """Turns whose action the environment could not carry out; malformed ones not among them."""
    malformed: int = 0
    """Turns without a readable action."""
    repeated: int = 0
    """Turns that do again, at the same observation, what an earlier turn of the episode did there."""


@dataclass(frozen=True)
class Manifest(_Row):
    """What a stage did; its presence in the stage's directory means the stage is done."""

    stage: str
    version: int
    fingerprint: str
    """Hash of stage, version, config without runtime, and the inputs' fingerprints."""
    config: dict[str, Any]
    inputs: dict[str, str]
    """Input name to the fingerprint it had."""
    rows: int
    errors: int
    seconds: float
    finished: str
    """UTC time, ISO 8601."""
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git_revision: str = ""


_TEXT, _INT32, _FLOAT = pa.string(), pa.int32(), pa.float64()
_TASK = pa.struct([("env", _TEXT), ("level", _TEXT), ("seed", pa.int64()), ("split", _TEXT)])
_STEP = pa.struct(
    [
        ("observation", _TEXT), ("text", _TEXT), ("thought", _TEXT), ("action", _TEXT),
        ("reward", _FLOAT), ("valid", pa.bool_()), ("malformed", pa.bool_()),
        ("num_tokens", _INT32), ("input_tokens", _INT32), ("token_ids", pa.list_(_INT32)),
        ("logprob", _FLOAT),
        ("context", pa.list_(pa.struct([("observation", _TEXT), ("text", _TEXT)]))),
    ]
)  # fmt: skip
_TOLD = pa.struct([("label", _TEXT), ("steps", pa.int64()), ("tokens", pa.int64())])


def _schema(name: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(fields, metadata={"record": name, "version": str(SCHEMA_VERSION)})


TRAJECTORY_SCHEMA = _schema(
    "Trajectory",
    [
        ("id", _TEXT), ("task", _TASK), ("policy", _TEXT), ("tokenizer", _TEXT), ("system", _TEXT),
        ("steps", pa.list_(_STEP)), ("reward", _FLOAT), ("success", pa.bool_()), ("stop_reason", _TEXT),
        ("error", _TEXT), ("final_observation", _TEXT),
        ("nodes", pa.list_(_INT32)), ("visits", pa.list_(_INT32)), ("values", pa.list_(_FLOAT)),
        ("index", _INT32), ("seed", pa.int64()), ("told", _TOLD),
    ],
)  # fmt: skip
SAMPLE_SCHEMA = _schema(
    "Sample",
    [
        ("id", _TEXT), ("trajectory_id", _TEXT), ("task_id", _TEXT), ("env", _TEXT), ("level", _TEXT),
        ("policy", _TEXT), ("label", _TEXT), ("view", _TEXT), ("reward", _FLOAT), ("success", pa.bool_()),
        ("num_steps", _INT32), ("num_tokens", _INT32), ("token_ids", pa.list_(_INT32)),
        ("agent_mask", pa.list_(pa.int8())), ("prompt_length", _INT32), ("kl_partner", _TEXT),
    ],
)  # fmt: skip
REFERENCE_SCHEMA = _schema(
    "ReferenceLogProbs",
    [("sample_id", _TEXT), ("logps", pa.list_(pa.float32())), ("kl_logps", pa.list_(pa.float32()))],
)
EPISODE_SCHEMA = _schema(
    "Episode",
    [
        ("method", _TEXT), ("decoding", _TEXT), ("task_id", _TEXT), ("level", _TEXT), ("success", pa.bool_()),
        ("reward", _FLOAT), ("num_tokens", _INT32), ("num_steps", _INT32), ("input_tokens", _INT32),
        ("stop_reason", _TEXT), ("trajectory_id", _TEXT), ("seed", pa.int64()), ("suite", _TEXT),
        ("invalid", _INT32), ("malformed", _INT32), ("repeated", _INT32),
    ],
)  # fmt: skip


def to_table(rows: Iterable[Any], schema: pa.Schema) -> pa.Table:
    """Records (or their rows) as one Arrow table of `schema`; texts as `valid_text` makes them.

    Raises `pa.ArrowException` or `OverflowError` for a value that its column cannot hold.
    """
    plain = [row.to_row() if hasattr(row, "to_row") else row for row in rows]
    try:
        return pa.Table.from_pylist(plain, schema=schema)
    except UnicodeEncodeError:
        return pa.Table.from_pylist(_valid(plain), schema=schema)


def valid_text(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which no file and no request can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _valid(value: Any) -> Any:
    """A plain value with `valid_text` for each text in it."""
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, Mapping):
        return {key: _valid(inner) for key, inner in value.items()}
    return [_valid(inner) for inner in value] if isinstance(value, list | tuple) else value


def version_problem(metadata: Mapping[bytes, bytes] | None, record: str) -> str:
    """Why a table with this schema metadata cannot be read as one of `record`; "" where it can."""
    named, version = ((metadata or {}).get(key, b"").decode() for key in (b"record", b"version"))
    if named != record or not version.isdigit():
        return f"not a table of {record}; give the file that a stage wrote, or run that stage again"
    if _SINCE[record] <= int(version) <= SCHEMA_VERSION:
        return ""
    mend = "upgrade depo"
    if int(version) < SCHEMA_VERSION:
        mend = "delete it and run the stage that wrote it again"
    wanted = f"{_SINCE[record]} to {SCHEMA_VERSION}" if _SINCE[record] < SCHEMA_VERSION else SCHEMA_VERSION
    return f"a {record} table of schema version {version}, this depo reads version {wanted}; {mend}"
