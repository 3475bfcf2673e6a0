"""Monte Carlo tree search over one task, and the plain episode, without any input or output.

Both are generators: they yield requests for replies, are sent one list of replies for each
request, and return trajectories. Who answers, and with how many other searches in the same
batch, is the driver's affair.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from depo.config.schema import SearchConfig
from depo.envs.base import SnapshotUnsupported, TextEnv
from depo.policies.base import Reply, Request, Sampling
from depo.records import Task, Trajectory
from depo.search.backup import back_up
from depo.search.episode import (
    Outcome,
    Setting,
    Turn,
    act,
    failure,
    request,
    request_seeds,
    roll_out,
    trajectory,
)
from depo.search.selection import best_child, descend
from depo.search.tree import Node, merge, path_to, speak

Search = Generator[list[Request], list[list[Reply]], list[Trajectory]]


@dataclass(frozen=True)
class _Rollout:
    """One finished simulation: its turns, the last tree node of its path, how it ended."""

    turns: list[Turn]
    leaf: Node
    end: Outcome


@dataclass
class _Tree:
    """The tree of one search, and what it grows from."""

    setting: Setting
    config: SearchConfig
    seeds: Iterator[int]
    first_observation: str
    root: Node = field(default_factory=lambda: Node(id=0))
    size: int = 1


def search(
    task: Task,
    env: TextEnv,
    config: SearchConfig,
    seed: int,
    policy_name: str,
    tokenizer: str,
) -> Search:
    """Search `task` with `config.simulations` rollouts; every distinct one is a trajectory.

    A simulation goes down the tree by UCT, asks at a known state for `config.width` candidate
    replies, takes a new child, and plays on from there with one reply a turn; its return is
    backed up along the tree path. Ends early when the tree has nothing new to offer. Visits and
    values on the trajectories are those at the end of the search.

    `env` belongs to this search until it ends. What the environment raises becomes a trajectory
    with `stop_reason` "error".
    """
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
    setting = Setting(task, env, sampling, config.max_steps, seed, policy_name, tokenizer)
    try:
        first = env.reset(task)
        state = _snapshot(env)
    except Exception as error:
        return [trajectory(setting, [], end=failure(error))]
    tree = _Tree(setting, config, request_seeds(seed, task, config.width), first)
    tree.root.state = state
    rollouts: dict[tuple[str, ...], tuple[int, _Rollout]] = {}
    for index in range(config.simulations):
        if tree.root.exhausted:
            break
        rollout = yield from _simulate(tree)
        back_up(rollout.leaf, sum(turn.outcome.reward for turn in rollout.turns))
        rollouts.setdefault(tuple(turn.reply.text for turn in rollout.turns), (index, rollout))
    return [_record(setting, rollout, index) for index, rollout in rollouts.values()]


def episode(
    task: Task,
    env: TextEnv,
    sampling: Sampling,
    max_steps: int,
    seed: int,
    policy_name: str,
    tokenizer: str,
) -> Search:
    """Play `task` once, one reply a turn; a single trajectory in a list."""
    setting = Setting(task, env, sampling, max_steps, seed, policy_name, tokenizer)
    try:
        first = env.reset(task)
    except Exception as error:
        return [trajectory(setting, [], end=failure(error))]
    turns = yield from roll_out(setting, [], first, request_seeds(seed, task, stride=1))
    return [trajectory(setting, turns)]


def _simulate(tree: _Tree) -> Generator[list[Request], list[list[Reply]], _Rollout]:
    """Select, expand, roll out: one simulation, not yet backed up."""
    setting = tree.setting
    node = descend(tree.root, tree.config.exploration)
    known = node if node.outcome or node is tree.root else node.parent
    assert known is not None
    turns, observation = _retrace(tree, known)
    if not known.ended:
        try:
            _place(setting, known)
        except Exception as error:
            known.dead = True
            return _Rollout(turns, known, failure(error))
        if node is known:
            (replies,) = yield [request(setting, turns, observation, tree.config.width, tree.seeds)]
            _expand(tree, known, replies, turns)
            node = best_child(known, tree.config.exploration)
        reply = speak(node, turns)
        _visit(setting, node, reply, len(turns) + 1)
        assert node.outcome is not None
        turns = [*turns, Turn(observation, reply, node.outcome)]
        turns = yield from roll_out(setting, turns, node.outcome.observation, tree.seeds)
    return _Rollout(turns, node, turns[-1].outcome)


def _retrace(tree: _Tree, node: Node) -> tuple[list[Turn], str]:
    """The turns down to `node`, and the observation there."""
    turns: list[Turn] = []
    observation = tree.first_observation
    for step in path_to(node):
        assert step.outcome is not None
        turns.append(Turn(observation, speak(step, turns), step.outcome))
        observation = step.outcome.observation
    return turns, observation


def _expand(tree: _Tree, node: Node, replies: list[Reply], turns: list[Turn]) -> None:
    groups = merge(replies)
    node.context = tuple(turn.reply for turn in turns)
    node.children = [Node(tree.size + i, node, group) for i, group in enumerate(groups)]
    tree.size += len(groups)


def _visit(setting: Setting, node: Node, reply: Reply, turn: int) -> None:
    """Step into a new node, from its parent's state, and remember what was found there."""
    node.outcome = act(setting.env, reply, turn, setting.max_steps)
    if node.outcome.stop is None:
        try:
            node.state = _snapshot(setting.env)
        except Exception as error:
            node.outcome = replace(node.outcome, stop="error", error=failure(error).error)
    node.dead = node.outcome.stop == "error"


def _snapshot(env: TextEnv) -> Any:
    try:
        return env.snapshot()
    except SnapshotUnsupported:
        return None


def _place(setting: Setting, node: Node) -> None:
    """Bring the environment into `node`'s state, by its snapshot or by playing its actions again."""
    if node.state is not None:
        setting.env.restore(node.state)
        return
    setting.env.reset(setting.task)
    for step in path_to(node):
        if not step.replies[0].malformed:
            setting.env.step(step.replies[0].action)


def _record(setting: Setting, rollout: _Rollout, index: int) -> Trajectory:
    path = path_to(rollout.leaf)
    return replace(
        trajectory(setting, rollout.turns, index, rollout.end),
        nodes=tuple(node.id for node in path),
        visits=tuple(node.visits for node in path),
        values=tuple(node.value for node in path),
    )
