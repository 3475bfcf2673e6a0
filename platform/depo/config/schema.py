"""Everything an experiment can be told, section by section.

What is computed stands in the sections; where and how wide it runs stands in `runtime`, which
never changes a result's identity.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from depo.config.base import Count, Fraction, NonNegative, Options, Positive, Seed, Strict
from depo.config.endpoint import OpenAIConfig
from depo.config.env import EnvConfig as EnvConfig
from depo.config.evaluation import EvaluationConfig as EvaluationConfig
from depo.config.evaluation import MethodName, require
from depo.config.evaluation import SuiteConfig as SuiteConfig
from depo.config.limits import check_limits
from depo.config.method import LoraConfig as LoraConfig
from depo.config.method import MethodConfig as MethodConfig
from depo.config.method import idle
from depo.config.runtime import RuntimeConfig
from depo.config.sweep import SweepConfig as SweepConfig
from depo.config.sweep import check_space

SCRIPTED = "scripted"
"""What the tiny student's episodes are called among the rounds."""
RESERVED = {
    "student", "trajectories", "samples", "reference", "evaluation", "suites", "thoughts", "sweep", "report",
    "config", "results", "superseded", "mlflow", "ray",
}  # fmt: skip


class TeacherConfig(Strict):
    """The scripted teacher, and the waste it shows."""

    kind: Literal["teacher"] = "teacher"
    wordiness: Fraction = 0.6
    """Chance that a thought carries filler."""
    waste: Fraction = 0.25
    """Chance of a step that leads nowhere (looking around, a detour)."""
    mistakes: Fraction = 0.1
    """Chance of a step that is wrong: the wrong object, or something that is not in sight."""


class TinyConfig(Strict):
    """The student of machines without weights: a small Llama made and pre-trained by the run."""

    hidden_size: Count = 128
    """Width; speed falls with its square."""
    layers: Count = 3
    heads: Count = 4
    intermediate_size: Count = 384
    vocab_size: Annotated[int, Field(ge=300)] = 640
    """Size of the byte-level BPE vocabulary trained on the scripted episodes."""
    episodes: Count = 12000
    """Scripted episodes to pre-train on, one a training task."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Training tasks to pass over first, so that rounds search tasks not pre-trained on."""
    max_steps: Count = 12
    """Turns after which a scripted episode is cut."""
    teacher: TeacherConfig = TeacherConfig()
    learning_rate: Positive = 2.5e-3
    epochs: Positive = 1.0
    batch_size: Count = 16
    """Episodes a step, over all workers."""
    observation_weight: Fraction = 0.1
    """Loss weight of tokens that are not the agent's; 0 trains on the agent's tokens alone."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> TinyConfig:
        twice = 2 * self.heads
        if self.hidden_size % twice:
            raise ValueError(
                f"hidden_size: {self.hidden_size} is no multiple of twice heads={self.heads}; take "
                f"{twice * max(1, round(self.hidden_size / twice))}"
            )
        return self


class StudentConfig(Strict):
    """The model that is trained."""

    model: str = "tiny"
    """"tiny", a Hugging Face model id, or the path of a folder; a relative one lies below the present
    directory."""
    revision: Annotated[str, Field(min_length=1)] | None = None
    """Branch, tag or commit of a Hugging Face id, None for its main branch; its commit is recorded."""
    tiny: TinyConfig = TinyConfig()
    max_length: Count = 2048
    """Longest trajectory in tokens."""
    too_long: Literal["drop", "cut"] = "drop"
    """What becomes of a longer one: left out of training, or cut after the last turn that fits; both
    are counted."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    chat_template: str | None = None
    """A file with another chat template (Jinja) than the model's own, saved with what is trained. None: the
    model's own. The tiny student has one that fits."""

    def unread(self) -> dict[str, str]:
        if self.model == "tiny":
            return {"revision": "while model is 'tiny'"}
        return {"revision": "of a folder"} if Path(self.model).is_absolute() else {}

    @model_validator(mode="after")
    def _template_of_a_model(self) -> StudentConfig:
        if self.chat_template is not None and self.model == "tiny":
            raise ValueError("chat_template: the tiny student has its own; drop it, or set `model`")
        return self

    @field_validator("model")
    @classmethod
    def _placed_model(cls, model: str) -> str:
        folder = Path(model).expanduser()
        looks_local = model.startswith((".", "/", "~")) or model.count("/") > 1
        if model != "tiny" and (looks_local or folder.is_dir()):
            return str(folder.absolute())
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[0-9a-f]{40})?", model):
            raise ValueError(
                f"{model!r} is neither a folder nor a hub id (OWNER/NAME); a branch is a `revision`"
            )
        return model

    @field_validator("chat_template")
    @classmethod
    def _wherever_it_is_read(cls, path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().absolute())


class EngineConfig(Strict):
    """A trained policy served by the generation engine of `runtime.generation`."""

    kind: Literal["engine"] = "engine"
    model: str = "bc"
    """"student", or the name of a method whose policy acts."""


class CustomConfig(Strict):
    """A policy of one's own."""

    kind: Literal["custom"] = "custom"
    cls: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    """`module:Class`, importable on every node; keeps the contract `depo.policies.base.Policy`."""
    options: Options = {}
    """Keyword arguments of the class."""


PolicyConfig = Annotated[
    TeacherConfig | EngineConfig | OpenAIConfig | CustomConfig, Field(discriminator="kind")
]


class ImportedConfig(Strict):
    """Nobody acts: the round's trajectories were made elsewhere, and `depo import` read them."""

    kind: Literal["imported"] = "imported"
    path: str
    """The folder that `depo import --out` wrote; the round's `tasks`, `skip` and `search` say nothing."""


RoundPolicy = Annotated[
    TeacherConfig | EngineConfig | OpenAIConfig | CustomConfig | ImportedConfig, Field(discriminator="kind")
]


class BudgetConfig(Strict):
    """What one task's search may use. Checked before each simulation, so the last one may exceed it."""

    steps: Count | None = None
    """Turns played in the environment."""
    tokens: Count | None = None
    """Generated tokens."""
    seconds: Positive | None = None
    """Wall time; a search cut by it is not the same when done again."""
    money: Positive | None = None
    """In the currency of the policy's prices."""


class SearchConfig(Strict):
    """Monte Carlo tree search over one task."""

    simulations: Count = 8
    """Rollouts a task; each is kept as a trajectory."""
    parallel: Count = 1
    """Simulations in flight in one tree, with virtual loss; more keep an engine full with few trees,
    and choose with less knowledge."""
    width: Count = 4
    """Candidate steps drawn when a node is expanded; equal actions are merged."""
    exploration: NonNegative = 1.0
    """`w` in UCT, `Q + w*sqrt(ln N(parent)/N)`; more explores more."""
    cost_weight: NonNegative = 0.0
    """`c` in `Q - c*C` for Q, where C is a child's mean tokens over the root's; more prefers cheap
    ways, 0 is plain UCT."""
    max_depth: Count | None = None
    """Turns below the root that the tree may grow to; what follows is rolled out. None: `max_steps`."""
    max_steps: Count = 12
    """Turns after which an episode is cut."""
    stop_after: Count | None = None
    """Successful rollouts that are enough: the search then ends early."""
    budget: BudgetConfig = BudgetConfig()
    temperature: NonNegative = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Count = 64
    """Most tokens of one reply."""
    structured: bool = False
    """Force the form `Thought: ...`, `Action: ...` on every reply; vLLM only, and slower. A reply cut
    by `max_tokens` is malformed all the same."""

    @model_validator(mode="after")
    def _limits_agree(self) -> SearchConfig:
        if self.max_depth is not None and self.max_depth > self.max_steps:
            raise ValueError(
                f"max_depth: {self.max_depth} is more than max_steps, which is {self.max_steps}; lower it"
            )
        return self


class RoundConfig(Strict):
    """One round of generation: who acts, on how many training tasks, searched how."""

    name: MethodName
    policy: RoundPolicy
    tasks: Count = 300
    """Training tasks of this round."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Training tasks to pass over first, so that rounds need not share tasks."""
    search: SearchConfig = SearchConfig()

    def unread(self) -> dict[str, str]:
        if self.policy.kind == "imported":
            return dict.fromkeys(("tasks", "skip", "search"), "while policy is imported")
        free = "by a policy whose tokens have no price"
        if self.policy.kind == "openai":
            found = {"search.structured": "by an endpoint; its form may be asked for in policy.options"}
            unpriced = self.policy.model not in self.policy.prices
            return found | ({"search.budget.money": f"{free} (policy.prices)"} if unpriced else {})
        return {"search.budget.money": free} if self.policy.kind in ("teacher", "engine") else {}


class RephraseConfig(Strict):
    """How the thoughts of desirable trajectories are shortened."""

    kind: Literal["rule", "openai", "none"] = "rule"
    """"rule": from shorter sibling thoughts and by dropping filler; "openai": by an endpoint."""
    endpoint: OpenAIConfig | None = None
    """The endpoint, where `kind` is "openai"."""

    def unread(self) -> dict[str, str]:
        return {} if self.kind == "openai" else {"endpoint": f"while kind is {self.kind!r}"}

    @model_validator(mode="after")
    def _has_endpoint(self) -> RephraseConfig:
        if self.kind == "openai" and self.endpoint is None:
            raise ValueError("kind 'openai' needs an `endpoint` section with base_url and model")
        return self


class AnnotationConfig(Strict):
    """Which trajectories are desirable (D), which undesirable (U), which are dropped."""

    kappa0: Fraction = 0.9
    """D needs at least this reward (the paper: BabyAI 0.9, WebShop 1.0)."""
    kappa1: Fraction = 0.9
    """U by reward lies below this ..."""
    kappa2: Fraction = 0.7
    """... and at or above this; less is dropped."""
    max_desirable_steps: Count = 6
    """D has at most this many steps (the paper: fewer than 7); longer is U."""
    failures: Literal["drop", "undesirable"] = "drop"
    """What becomes of failed episodes of up to `max_desirable_steps`; longer ones are U anyway."""
    pairing: Literal["none", "task"] = "none"
    """"task" keeps only tasks that have both labels."""
    imported: Literal["labels", "rules"] = "labels"
    """Of imported trajectories: "labels" obeys those that their file gives, and leaves the step rule out
    where it gives none; "rules" labels them as a round of one's own."""
    rephrase: RephraseConfig = RephraseConfig()
    seed: Seed = 0
    """Of the pairing of KL partners."""

    @model_validator(mode="after")
    def _ordered(self) -> AnnotationConfig:
        if not self.kappa2 <= self.kappa1 <= self.kappa0:
            raise ValueError("needs kappa2 <= kappa1 <= kappa0; reorder the thresholds")
        return self


class TrackingConfig(Strict):
    """Where MLflow keeps the mirror of the run."""

    enabled: bool = True
    uri: str | None = None
    """An MLflow server (`http://HOST:PORT`) or database; by default an SQLite file beside the runs."""
    experiment: str | None = None
    """Experiment name; by default the run's name."""
    adapters: bool = False
    """Copy trained adapters to the store too; costs their size, once a method and once a trial."""

    @field_validator("uri")
    @classmethod
    def _an_address(cls, uri: str | None) -> str | None:
        if uri is not None and "://" not in uri:
            raise ValueError(
                f"{uri!r} is no address; write http://HOST:PORT for a server, sqlite:///PATH for a file"
            )
        return uri


class ExperimentConfig(Strict):
    """A whole experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Names the run directory, `<runs_dir>/<name>`."""
    description: str = ""
    departures: str = ""
    """One line on where the recipe departs from the paper; printed in the report."""
    seed: Seed = 0
    env: EnvConfig = EnvConfig()
    student: StudentConfig = StudentConfig()
    rounds: Annotated[list[RoundConfig], Field(min_length=1)]
    annotation: dict[str, AnnotationConfig] = {}
    """Round name to how it is annotated; a round not named here is annotated as published."""
    methods: dict[MethodName, MethodConfig]
    evaluation: EvaluationConfig = EvaluationConfig()
    sweep: SweepConfig | None = None
    tracking: TrackingConfig = TrackingConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def unread(self) -> dict[str, str]:
        imported = {r.name for r in self.rounds if r.policy.kind == "imported"}
        found = {}
        for name, annotation in self.annotation.items():
            if name not in imported:
                found[f"annotation.{name}.imported"] = "of a round that is not imported"
            elif annotation.imported == "labels":
                found[f"annotation.{name}.max_desirable_steps"] = "while imported is 'labels'"
        for name, method in self.methods.items():
            found |= {f"methods.{name}.{field}": why for field, why in idle(method).items()}
        return found

    @model_validator(mode="after")
    def _names_resolve(self) -> ExperimentConfig:
        rounds = [r.name for r in self.rounds]
        policies = ["student", *self.methods]
        for name in self.methods:
            if name in RESERVED:
                raise ValueError(f"methods.{name}: the name is taken by the run directory; rename it")
        if len(set(rounds)) < len(rounds):
            raise ValueError("rounds: two rounds share a name; rename one")
        if SCRIPTED in rounds:
            raise ValueError(
                f"rounds.{SCRIPTED}: the name is taken by the tiny student's episodes; rename it"
            )
        for r in self.rounds:
            if isinstance(r.policy, EngineConfig):
                require(r.policy.model, policies, f"rounds.{r.name}.policy.model")
        for name in self.annotation:
            require(name, rounds, f"annotation.{name}")
        for name, method in self.methods.items():
            require(method.init, [p for p in policies if p != name], f"methods.{name}.init")
            require(method.samples, rounds, f"methods.{name}.samples")
        self.evaluation.check_names(policies, RESERVED)
        self._refuse_circles()
        check_limits(self)
        if self.sweep is not None:
            require(self.sweep.method, list(self.methods), "sweep.method")
            check_space(self.sweep, self.methods[self.sweep.method])
        return self

    @property
    def evaluated(self) -> list[str]:
        """Names of the policies that are evaluated, in the table's order."""
        return self.evaluation.methods or [*self.methods, *self.evaluation.controlled]

    def _refuse_circles(self) -> None:
        """A method's policy must not need itself, through what it starts from or the data it reads."""
        acts = {r.name: r.policy.model for r in self.rounds if isinstance(r.policy, EngineConfig)}

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                raise ValueError(
                    f"methods.{name}: needs itself ({' -> '.join([*path, name])}); break the circle"
                )
            if name in self.methods:
                method = self.methods[name]
                for needed in {method.init, acts.get(method.samples, "student")}:
                    visit(needed, (*path, name))

        for name in self.methods:
            visit(name, ())
