"""What `training.py` trains: episodes of the demo's environment and search, labelled as the demo does.

The scripted teacher stands in for the student, so that making the data takes seconds and no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets import Dataset

from depo.config.load import load_config
from depo.data.labels import label_all
from depo.data.samples import make_samples
from depo.data.store import write_table
from depo.envs.registry import make_env
from depo.policies.chat import ChatRenderer
from depo.policies.teacher import TeacherPolicy
from depo.records import Label, ReferenceLogProbs, Sample, Trajectory
from depo.search.driver import drive
from depo.search.run import search
from depo.training.tiny import make_tiny

DEMO = load_config(Path(__file__).parent.parent / "configs" / "babyai-tiny.yaml")
ROUND = next(one for one in DEMO.rounds if one.name == "student")
VIEW = "raw"
MAX_LENGTH = DEMO.student.max_length

Labelled = list[tuple[Trajectory, Label]]


def episodes(tasks: int) -> Labelled:
    """Labelled trajectories of the first `tasks` training tasks, the same ones at every call."""
    env = make_env(DEMO.env.id, DEMO.env.options)
    trees = (
        (task.id, search(task, env, ROUND.search, number, "teacher", ""))
        for number, task in enumerate(env.tasks("train", tasks))
    )
    policy = TeacherPolicy(DEMO.student.tiny.teacher.model_copy(update={"wordiness": 0.6, "waste": 0.25}))
    found: list[Trajectory] = []
    for finished in drive(trees, policy, in_flight=1):
        if finished.error is not None:
            raise finished.error
        found += finished.trajectories
    return label_all(found, DEMO.annotation[ROUND.name])[0]


def make_model(folder: Path, labelled: Labelled, hidden_size: int, layers: int) -> ChatRenderer:
    """A random Llama with a tokenizer of the episodes' words in `folder`."""
    texts = [text for t, _ in labelled for text in (t.system, *(s.observation for s in t.steps))]
    texts += [step.text for t, _ in labelled for step in t.steps]
    shape = DEMO.student.tiny.model_copy(update={"hidden_size": hidden_size, "layers": layers})
    return ChatRenderer(make_tiny(shape, texts, MAX_LENGTH, 0, folder))


def one_turn(labelled: Labelled) -> Labelled:
    """Only the first turn of each episode."""
    return [(replace(trajectory, steps=trajectory.steps[:1]), mark) for trajectory, mark in labelled]


def fitting(labelled: Labelled, renderer: ChatRenderer) -> Labelled:
    """The episodes that leave room for a KL pair: one's prompt before another's completion."""
    samples = make_samples(labelled, {}, renderer, 0)
    kept = {s.trajectory_id for s in samples if len(s.token_ids) + 128 <= MAX_LENGTH}
    return [pair for pair in labelled if pair[0].id in kept]


def samples_of(labelled: Labelled, renderer: ChatRenderer) -> list[Sample]:
    """One sample an episode, in order, its KL partner fixed by a hash as in every run."""
    return [s for s in make_samples(labelled, {}, renderer, DEMO.seed) if s.view == VIEW]


def pair_as_trl(samples: Sequence[Sample], batch: int) -> list[Sample]:
    """The samples with TRL's KL partners: inside each run of `batch`, the one before."""
    runs = [samples[start : start + batch] for start in range(0, len(samples), batch)]
    return [replace(s, kl_partner=run[place - 1].id) for run in runs for place, s in enumerate(run)]


def conversations(labelled: Labelled) -> Dataset:
    """The episodes as TRL's users have them: `prompt` and `completion` messages, `label`."""
    return Dataset.from_list([_conversation(t) | {"label": mark == "D"} for t, mark in labelled])


def _conversation(trajectory: Trajectory) -> dict[str, list[dict[str, str]]]:
    chat = [{"role": "system", "content": trajectory.system}]
    for step in trajectory.steps:
        chat += [{"role": "user", "content": step.observation}, {"role": "assistant", "content": step.text}]
    return {"prompt": chat[:2], "completion": chat[2:]}


def write_reference(samples: Path, model_dir: Path, path: Path) -> None:
    """Score the samples of a file and their KL pairs under the model that training starts from."""
    from depo.training.dataset import load_samples
    from depo.training.reference import ReferenceScorer, score_table

    table = load_samples(str(samples), VIEW, MAX_LENGTH)
    write_table(path, score_table(table, ReferenceScorer(str(model_dir))), ReferenceLogProbs)
