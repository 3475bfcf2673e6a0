"""Monte Carlo tree search over one task, and the plain episode, without any input or output.

Both are generators: they yield requests for replies, are sent the answers one at a time as
(request id, replies), whichever comes first, and return trajectories. Who answers, and what else
that engine has in flight, is the driver's affair.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace

from depo.config.schema import BudgetConfig, SearchConfig
from depo.envs.base import TextEnv
from depo.policies.base import Reply, Request, Sampling
from depo.records import Task, Trajectory
from depo.search.backup import back_up, enter, leave
from depo.search.episode import (
    UNCONTROLLED,
    Outcome,
    Setting,
    Turn,
    TurnControl,
    act,
    failure,
    request,
    request_seeds,
    roll_out,
    trajectory,
)
from depo.search.seat import Seat
from depo.search.selection import best_child
from depo.search.tree import Node, merge, path_to, speak

Search = Generator[list[Request], tuple[int, list[Reply]], list[Trajectory]]

_Simulation = Generator["Request | Node", list[Reply], "_Rollout"]


@dataclass(frozen=True)
class _Rollout:
    """One finished simulation: its turns, the last tree node of its path, how it ended."""

    turns: list[Turn]
    leaf: Node
    end: Outcome
    played: int
    """How many of `turns` the tree did not have before."""
    dead: bool = False
    """The environment failed at the leaf: nothing below can be reached."""

    @property
    def reward(self) -> float:
        return sum(turn.outcome.reward for turn in self.turns)

    @property
    def tokens(self) -> int:
        return sum(turn.reply.num_tokens for turn in self.turns)


@dataclass
class _Tree:
    """The tree of one search, and what it grows from."""

    setting: Setting
    config: SearchConfig
    first_observation: str
    root: Node = field(default_factory=lambda: Node(id=0))
    expanded: dict[int, Node] = field(default_factory=dict)
    """Simulation to the node that got its children by it."""
    stream: Iterator[int] = field(init=False)
    """Seeds of simulations that come one after the other."""

    def __post_init__(self) -> None:
        self.stream = request_seeds(self.setting.seed, self.setting.task, self.config.width)

    def seeds(self, index: int) -> Iterator[int]:
        """Seeds of simulation `index`'s requests; its own where others ask at the same time, so that
        they don't depend on who comes first."""
        if not self.setting.shared:
            return self.stream
        before = index * (self.config.max_steps + 1)  # no simulation asks more often
        return request_seeds(self.setting.seed, self.setting.task, self.config.width, before)

    def number_nodes(self) -> None:
        """Give the nodes their ids, in the order of the simulations that brought them."""
        nodes = [child for _, node in sorted(self.expanded.items()) for child in node.children or ()]
        for number, node in enumerate(nodes, start=1):
            node.id = number


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
    backed up along the tree path. Ends early when the tree has nothing new to offer, was solved
    `config.stop_after` times, or has used up `config.budget`. Visits and values on the trajectories
    are those at the end of the search.

    With `config.parallel` simulations in flight, simulation j chooses its way once those up to
    j - `parallel` are backed up, and no later one is; where it comes to a node whose children are
    not there yet, it waits for them, and goes on after those that came there before it. So the tree
    does not depend on the order of the answers. An environment that cannot save its state is
    searched one simulation at a time.

    `env` belongs to this search until it ends. What the environment raises becomes a trajectory
    with `stop_reason` "error".
    """
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens, config.structured)
    seat = Seat(env, task)
    setting = Setting(task, seat, sampling, config.max_steps, seed, policy_name, tokenizer)
    try:
        first = seat.open()
        state = seat.save()
    except Exception as error:
        return [trajectory(setting, [], end=failure(error))]
    parallel = 1 if seat.replays else config.parallel
    tree = _Tree(replace(setting, shared=parallel > 1), config, first)
    tree.root.state = state
    simulations = _Simulations(tree, parallel)
    asked = simulations.start()
    while simulations.running:
        answered, replies = yield asked
        asked = simulations.go_on(answered, replies) + simulations.start()
    rollouts = simulations.results()
    tree.number_nodes()
    return [_record(tree.setting, rollout, index) for index, rollout in rollouts]


def episode(
    task: Task,
    env: TextEnv,
    sampling: Sampling,
    max_steps: int,
    seed: int,
    policy_name: str,
    tokenizer: str,
    control: TurnControl = UNCONTROLLED,
) -> Search:
    """Play `task` once, one reply a turn; a single trajectory in a list.

    An episode that `control` stops early has the `stop_reason` "early_stop".
    """
    seat = Seat(env, task)
    setting = Setting(task, seat, sampling, max_steps, seed, policy_name, tokenizer, control)
    try:
        first = seat.open()
    except Exception as error:
        return [trajectory(setting, [], end=failure(error))]
    playing = roll_out(setting, [], first, request_seeds(seed, task, stride=1))
    asked = next(playing)
    while True:
        _, replies = yield [asked]
        try:
            asked = playing.send(replies)
        except StopIteration as stop:
            return [trajectory(setting, stop.value)]


class _Simulations:
    """The simulations of one tree: started in turn, answered in any order, backed up in turn."""

    def __init__(self, tree: _Tree, parallel: int) -> None:
        self.running: dict[int, tuple[int, _Simulation]] = {}
        """Id of the open request to the simulation that asked it."""
        self._waiting: dict[Node, list[tuple[int, _Simulation]]] = {}
        """Node that is being expanded to the simulations that wait for its children, in turn."""
        self._tree, self._parallel = tree, parallel
        self._started = self._backed_up = self._solved = 0
        self._over: dict[int, _Rollout] = {}
        """Finished simulations that are not backed up as yet."""
        self._drawn: dict[int, list[Reply]] = {}
        """All replies to the requests of a simulation that is not backed up as yet."""
        self._found: dict[tuple[str, ...], tuple[int, _Rollout]] = {}
        self._spent = _Spent(tree.config.budget)

    def start(self) -> list[Request]:
        """Begin every simulation whose turn it is; their first requests."""
        asked: list[Request] = []
        while self._may_start():
            index = self._started
            self._started += 1
            self._drawn[index] = []
            asked += self._advance(index, _simulate(self._tree, index), None)
        return asked

    def go_on(self, answered: int, replies: list[Reply]) -> list[Request]:
        """Hand the answer to the simulation that asked; what it and those it held up ask next."""
        index, simulation = self.running.pop(answered)
        self._drawn[index] += replies
        asked = self._advance(index, simulation, replies)
        for node in [node for node in self._waiting if node.children is not None]:
            for waiting in self._waiting.pop(node):
                asked += self._advance(*waiting, None)
        return asked

    def results(self) -> list[tuple[int, _Rollout]]:
        """All distinct rollouts and the indices of their simulations, once nothing is running."""
        while self._backed_up in self._over:
            self._back_up()
        return list(self._found.values())

    def _may_start(self) -> bool:
        while self._backed_up <= self._started - self._parallel:
            if self._backed_up not in self._over:
                return False
            self._back_up()
        config = self._tree.config
        if self._started >= config.simulations or self._tree.root.closed:
            return False
        return not (config.stop_after and self._solved >= config.stop_after) and not self._spent.all

    def _advance(self, index: int, simulation: _Simulation, replies: list[Reply] | None) -> list[Request]:
        try:
            asked = next(simulation) if replies is None else simulation.send(replies)
        except StopIteration as stop:
            self._over[index] = stop.value
            return []
        if isinstance(asked, Node):
            self._waiting.setdefault(asked, []).append((index, simulation))
            return []
        self.running[asked.id] = (index, simulation)
        return [asked]

    def _back_up(self) -> None:
        index, rollout = self._backed_up, self._over.pop(self._backed_up)
        self._backed_up += 1
        back_up(rollout.leaf, rollout.reward, rollout.tokens, rollout.dead)
        self._solved += rollout.end.success
        self._spent.count(self._drawn.pop(index), rollout.played)
        self._found.setdefault(tuple(turn.reply.text for turn in rollout.turns), (index, rollout))


class _Spent:
    """What the simulations backed up so far have used of a budget."""

    def __init__(self, budget: BudgetConfig) -> None:
        self._budget = budget
        self._started = time.monotonic()
        self._steps, self._tokens, self._money = 0, 0, 0.0

    def count(self, drawn: list[Reply], steps: int) -> None:
        self._steps += steps
        self._tokens += sum(reply.num_tokens for reply in drawn)
        self._money += sum(reply.money for reply in drawn)

    @property
    def all(self) -> bool:
        """One of the limits is reached."""
        limit = self._budget
        return (
            (limit.steps is not None and self._steps >= limit.steps)
            or (limit.tokens is not None and self._tokens >= limit.tokens)
            or (limit.money is not None and self._money >= limit.money)
            or (limit.seconds is not None and time.monotonic() - self._started >= limit.seconds)
        )


def _simulate(tree: _Tree, index: int) -> _Simulation:
    """Select, expand, roll out: one simulation, under way in the tree and not yet backed up.

    It yields its requests, and a node where it has to wait until that has children.
    """
    setting, config, seeds = tree.setting, tree.config, tree.seeds(index)
    node, observation = tree.root, tree.first_observation
    turns: list[Turn] = []
    child: Node | None = None
    enter(node)
    while not node.ended:
        if node.expanding and node.children is None:
            yield node
        if node.children is not None:
            child = best_child(node, tree.root, config.exploration, config.cost_weight)
            if child.outcome is not None:
                leave(node)
                enter(child)
                turns.append(Turn(observation, speak(child, turns), child.outcome))
                node, observation, child = child, child.outcome.observation, None
                continue
        try:
            setting.seat.go([turn.reply for turn in turns], node.state)
        except Exception as error:
            setting.seat.lost()
            leave(node)
            return _Rollout(turns, node, failure(error), played=0, dead=True)
        if child is not None or len(turns) >= (config.max_depth or config.max_steps):
            break
        node.expanding, node.context = True, tuple(turn.reply for turn in turns)
        replies = yield request(setting, turns, observation, config.width, seeds, node.state)
        node.children = [Node(id=0, parent=node, replies=group) for group in merge(replies)]
        tree.expanded[index] = node
    leave(node)
    known = len(turns)
    if child is not None:
        enter(child)
        leave(child)
        _visit(setting, child, speak(child, turns), observation, turns)
        node, observation = child, turns[-1].outcome.observation
    dead = bool(turns) and turns[-1].outcome.stop == "error"
    turns = yield from roll_out(setting, turns, observation, seeds, node.state)
    return _Rollout(turns, node, turns[-1].outcome, len(turns) - known, dead)


def _visit(setting: Setting, node: Node, reply: Reply, observation: str, turns: list[Turn]) -> None:
    """Step into a new node, from its parent's state; what was found there is kept, and put after `turns`."""
    assert node.parent is not None
    node.outcome = act(setting, turns, reply, node.parent.state)
    if reply.malformed:
        node.state = node.parent.state
    elif node.outcome.stop is None:
        try:
            node.state = setting.seat.save()
        except Exception as error:
            setting.seat.lost()
            node.outcome = replace(node.outcome, stop="error", error=failure(error).error)
    turns.append(Turn(observation, reply, node.outcome))


def _record(setting: Setting, rollout: _Rollout, index: int) -> Trajectory:
    path = path_to(rollout.leaf)
    return replace(
        trajectory(setting, rollout.turns, index, rollout.end),
        nodes=tuple(node.id for node in path),
        visits=tuple(node.visits for node in path),
        values=tuple(node.value for node in path),
    )
