"""The contract check passes a sound environment and finds each way to break the contract."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from depo.config.base import ConfigError
from depo.envs.base import SnapshotUnsupported, StepResult
from depo.envs.check import ROGUE, check_env
from depo.records import Task

SHAPE = "it has what the contract names"
SPLITS = "splits share no task"
SAME = "the same actions lead to the same episode"
REWARDS = "rewards are finite numbers"
SNAPSHOT = "a restored state has the same future"
INVALID = "an invalid action is an observation"
UNMOVED = "an invalid action changes nothing"
AVAILABLE = "available actions are valid"
PICKLE = "it survives pickling"
FIRST = {"train": 0, "validation": 100_000, "test": 200_000}


class Sound:
    """Count up to the task's number, in ones and threes, and stop there."""

    id, system = "sound", "Count."

    def __init__(self) -> None:
        self.goal, self.path = 0, [0]

    def reset(self, task: Task) -> str:
        self.goal, self.path = task.seed + 5, [0]
        return self.look()

    def look(self) -> str:
        return f"{self.path} of {self.goal}"

    def step(self, action: str) -> StepResult:
        if action not in self.available_actions():
            return self.refuse(action)
        self.path.append(self.path[-1] + (3 if action == "three" else 1))
        ended = action == "stop" or self.path[-1] > self.goal
        return StepResult(self.look(), float(self.path[-1] == self.goal), ended, False, {"valid": True})

    def refuse(self, action: str) -> StepResult:
        return StepResult("no", 0.0, False, False, {"valid": False})

    def available_actions(self) -> list[str]:
        return ["one", "three", "stop"]

    def snapshot(self) -> Any:
        return self.goal, list(self.path)

    def restore(self, state: Any) -> None:
        self.goal, self.path = state[0], list(state[1])

    def tasks(self, split: str, count: int) -> list[Task]:
        if split not in FIRST:
            raise ValueError(split)
        return [Task(self.id, "one", FIRST[split] + n, split) for n in range(count)]


class WithoutSnapshots(Sound):
    def snapshot(self):
        raise SnapshotUnsupported("none")

    def restore(self, state):
        raise SnapshotUnsupported("none")


class OpenEnded(WithoutSnapshots):
    def step(self, action):
        if not action.isdigit():
            return self.refuse(action)
        return StepResult("heard", 0.0, True, False, {"valid": True})

    def available_actions(self):
        return []


class FewTasks(Sound):
    def tasks(self, split, count):
        if split != "test" or count > 2:
            raise ConfigError(f"only 2 test tasks, {count} {split} tasks were asked for")
        return super().tasks(split, count)


class NoTasks(Sound):
    def tasks(self, split, count):
        return []


class NoSystem(Sound):
    system = None


class NoStep(Sound):
    step = None


class Explodes(Sound):
    def __init__(self) -> None:
        raise OSError("the data\nis not there")


class SharedIds(Sound):
    def tasks(self, split, count):
        return (
            [Task(self.id, "one", n, split) for n in range(count)]
            if split in FIRST
            else super().tasks(split, 1)
        )


class SameGame(Sound):
    def reset(self, task):
        return super().reset(Task(task.env, task.level, task.seed % 100_000, task.split))


class TwiceInOneSplit(Sound):
    def tasks(self, split, count):
        return super().tasks(split, 1) * count


class OtherTasksEachTime(Sound):
    clock = itertools.count()

    def tasks(self, split, count):
        return super().tasks(split, count + next(self.clock))[-count:]


class MislabelledSplit(Sound):
    def tasks(self, split, count):
        return [Task(t.env, t.level, t.seed, "train") for t in super().tasks(split, count)]


class AnySplit(Sound):
    def tasks(self, split, count):
        return super().tasks(split if split in FIRST else "train", count)


class SharesTheLast(Sound):
    """90 tasks a split; the last ten test tasks are train tasks under other numbers."""

    def tasks(self, split, count):
        return super().tasks(split, min(count, 90))

    def reset(self, task):
        seed = task.seed % 100_000 - 80 if task.seed >= FIRST["test"] + 80 else task.seed
        return super().reset(Task(task.env, task.level, seed, task.split))


class SmallWorld(Sound):
    """30 tasks a split; one of validation is one of train."""

    def tasks(self, split, count):
        return super().tasks(split, min(count, 30))

    def reset(self, task):
        seed = 3 if task.seed == FIRST["validation"] + 3 else task.seed
        return super().reset(Task(task.env, task.level, seed, task.split))


class SharesANumber(Sound):
    """300 tasks a split, of which the last of validation is a train task; more are refused."""

    def tasks(self, split, count):
        if count > 300:
            raise ValueError("there are 300")
        tasks = super().tasks(split, count)
        last = [Task(self.id, "one", 5, split)] if split == "validation" and count == 300 else tasks[299:]
        return tasks[:299] + last


class SaysHowMany(SharesANumber):
    def task_count(self, split):
        return 300


class PaysNothingAtAll(Sound):
    def step(self, action):
        result = super().step(action)
        return StepResult(result.observation, float("nan"), result.terminated, False, result.info)


class PaysInWords(Sound):
    def refuse(self, action):
        return StepResult("no", "none", False, False, {"valid": False})


class Clocked(Sound):
    clock = itertools.count()

    def look(self):
        return f"{super().look()} at {next(self.clock)}"


class Leaking(Sound):
    """Remembers the last episode."""

    last = 0

    def reset(self, task):
        self.last, before = task.seed, self.last
        return f"{super().reset(task)}, after {before}"


class OneOfAKind(Sound):
    made = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.number = next(self.made)

    def look(self):
        return f"{super().look()} by {self.number}"


class Silent(Sound):
    def reset(self, task):
        super().reset(task)
        return ""


class AliasedSnapshot(Sound):
    def snapshot(self):
        return self.goal, self.path

    def restore(self, state):
        self.goal, self.path = state


class HalfASnapshot(Sound):
    def snapshot(self):
        return list(self.path)

    def restore(self, state):
        self.path = list(state)


class LostSnapshot(Sound):
    def restore(self, state):
        raise RuntimeError("where was it?")


class RaisesOnRogue(Sound):
    def refuse(self, action):
        raise KeyError(action)


class TakesAll(Sound):
    def refuse(self, action):
        return StepResult("fine", 0.0, False, False, {"valid": True})


class SaysNothing(Sound):
    def refuse(self, action):
        return StepResult("", 0.0, False, False, {"valid": False})


class EndsOnRogue(Sound):
    def refuse(self, action):
        return StepResult("no", 0.0, True, False, {"valid": False})


class NoResult(Sound):
    def refuse(self, action):
        return "no", 0.0, False


class Lenient(Sound):
    """Drops what it does not know from an action, and so takes other scripts for an empty one."""

    def step(self, action):
        if not action.isascii():
            return StepResult(self.look(), 0.0, False, False, {"valid": True})
        return super().step(action)


class Stumbles(Sound):
    def refuse(self, action):
        self.path.append(self.path[-1] + 1)
        return super().refuse(action)


class Tires(Sound):
    """Offers less after each invalid action."""

    tired = False

    def reset(self, task):
        self.tired = False
        return super().reset(task)

    def refuse(self, action):
        self.tired = True
        return super().refuse(action)

    def available_actions(self):
        return ["one", "stop"] if self.tired else super().available_actions()


class Promises(Sound):
    def available_actions(self):
        return [*super().available_actions(), "fly"]

    def step(self, action):
        return self.refuse(action) if action == "fly" else super().step(action)


class Unpicklable(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.helper = lambda: None


class Forgetful(Sound):
    def __getstate__(self):
        return {}

    def __setstate__(self, state):
        self.__init__()


@pytest.mark.parametrize("env", [Sound, WithoutSnapshots, OpenEnded, FewTasks])
def test_a_sound_environment_passes(env):
    checks = check_env(f"test_check:{env.__name__}", {})
    assert len(checks) == 9
    assert [check for check in checks if not check.ok] == []


@pytest.mark.parametrize(
    ("env", "clause", "detail"),
    [
        (Explodes, "it can be made", "OSError: the data is not there"),
        (NoSystem, SHAPE, "system is no text"),
        (NoStep, SHAPE, "no method step"),
        (NoTasks, SPLITS, "no split has a task"),
        (SharedIds, SPLITS, "train and validation share sound/one/0"),
        (SameGame, SPLITS, "train and validation share sound/one/0, which plays like sound/one/100000"),
        (SharesTheLast, SPLITS, "sound/one/0, which plays like sound/one/200080 (10 of 90 test tasks"),
        (SharesANumber, SPLITS, "train and validation share sound/one/5"),
        (SaysHowMany, SPLITS, "train and validation share sound/one/5"),
        (PaysNothingAtAll, REWARDS, "the environment gave nan as a reward; it must be a finite number"),
        (PaysInWords, REWARDS, "the environment gave 'none' as a reward"),
        (TwiceInOneSplit, SPLITS, "train has ['sound/one/0'] more than once"),
        (OtherTasksEachTime, SPLITS, "train has other tasks when asked again"),
        (MislabelledSplit, SPLITS, "a task of validation names another split"),
        (AnySplit, SPLITS, "tasks('no such split', 1) raises no ValueError"),
        (Clocked, SAME, "differs when played again: at 0"),
        (Leaking, SAME, "differs when played again: at 0"),
        (OneOfAKind, SAME, "differs when played again: at 0"),
        (Silent, SAME, "reset gave '', no observation"),
        (AliasedSnapshot, SNAPSHOT, "restored after"),
        (HalfASnapshot, SNAPSHOT, "restored after"),
        (LostSnapshot, SNAPSHOT, "RuntimeError: where was it?"),
        (RaisesOnRogue, INVALID, "KeyError"),
        (TakesAll, INVALID, "an empty string: '' was taken as valid"),
        (SaysNothing, INVALID, "an empty string: no observation"),
        (EndsOnRogue, INVALID, "an empty string: '' ended the episode"),
        (NoResult, INVALID, "an empty string: step gave tuple, no StepResult"),
        (Lenient, INVALID, "another script: '去红球' was taken as valid"),
        (Stumbles, UNMOVED, "an empty string changed the episode: at 0"),
        (Tires, UNMOVED, "an empty string changed the available actions"),
        (Promises, AVAILABLE, "'fly' is offered but invalid"),
        (Unpicklable, PICKLE, "pickle"),
        (Forgetful, PICKLE, "pickled after"),
    ],
)  # fmt: skip
def test_a_broken_clause_is_found_and_told_in_one_line(env, clause, detail):
    checks = {check.name: check for check in check_env(f"test_check:{env.__name__}", {})}
    assert not checks[clause].ok
    assert detail in checks[clause].detail and "\n" not in checks[clause].detail


@pytest.mark.parametrize(
    "env", [AnySplit, AliasedSnapshot, Lenient, Stumbles, Promises, Unpicklable, PaysNothingAtAll]
)
def test_one_broken_clause_leaves_the_others_alone(env):
    failed = [check.name for check in check_env(f"test_check:{env.__name__}", {}) if not check.ok]
    assert 1 <= len(failed) <= 2


def test_a_few_tasks_that_play_alike_by_chance_are_told():
    checks = {check.name: check for check in check_env("test_check:SmallWorld", {})}
    told = "train and validation share sound/one/3, which plays like sound/one/100003 (1 of 30 validation"
    assert checks[SPLITS].ok and told in checks[SPLITS].detail


def test_the_rogue_actions_are_those_that_policies_come_up_with():
    assert max(map(len, ROGUE.values())) == 10_000
    assert any("\x00" in action for action in ROGUE.values())
    assert any("[[" in action for action in ROGUE.values())
    assert not all(action.isascii() for action in ROGUE.values())


def test_an_environment_that_there_is_not_is_an_error_and_no_finding():
    with pytest.raises(ConfigError, match="cannot be imported"):
        check_env("test_check:Nowhere", {})
    with pytest.raises(ConfigError, match="unknown option"):
        check_env("test_check:Sound", {"size": 3})
