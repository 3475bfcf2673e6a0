"""Task numbers of the splits, from ranges, lists and files of ids."""

from __future__ import annotations

import json
import pickle

import pytest

from depo.config.base import ConfigError
from depo.envs.agentgym import AgentGymEnv
from depo.envs.babyai.env import BabyAIEnv
from depo.envs.registry import make_env
from depo.envs.task_lists import TaskNumbers

ROWS = [{"item_id": "babyai_12", "conversations": []}, {"item_id": "babyai_3"}, "babyai_12", 83]


def files(folder):
    (folder / "test.json").write_text(json.dumps(ROWS))
    (folder / "test.jsonl").write_text("\ufeff" + "".join(json.dumps(row) + "\n" for row in ROWS) + "\n")
    (folder / "test.txt").write_text("babyai_12\r\nbabyai_3\r\n\r\nbabyai_12\r\n83\r\n")
    return sorted(folder.iterdir())


def test_a_list_and_every_kind_of_file_give_the_same_numbers(tmp_path):
    given = [*map(str, files(tmp_path)), ["babyai_12", "3", 12, "babyai_83"]]
    assert len(given) == 4
    for each in given:
        numbers = TaskNumbers({"test": each}, "babyai")
        assert list(numbers.of("test")) == [12, 3, 83] and list(numbers.first("test", 2)) == [12, 3]
        assert list(pickle.loads(pickle.dumps(numbers)).of("test")) == [12, 3, 83]
    assert list(TaskNumbers({"test": [3, 6]}, "").of("test")) == [3, 4, 5]
    assert list(TaskNumbers({"test": ["3", "6"]}, "").of("test")) == [3, 6]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "a.json: not JSON"),
        ("a.json", "{}", "a.json: expected an array of ids, got dict"),
        ("a.json", "[" * 100_000, "a.json: not JSON"),
        ("a.json", "[]", "holds no task; give [first, end), a list of ids"),
        ("a.json", '["babyai_1", {"x": []}]', "a.json: row 2: {'x': []} is no task id"),
        ("a.json", '[1, "webshop_2"]', "a.json: row 2: 'webshop_2' is a task of webshop; leave it out"),
        ("a.jsonl", '"babyai_1"\n{\n', "a.jsonl: row 2: not JSON"),
        ("a.jsonl", "1\ntrue\n", "a.jsonl: row 2: True is no task id; give a number or NAME_NUMBER"),
        ("a.jsonl", "1\n-2\n", "a.jsonl: row 2: -2 is no task id"),
        ("a.jsonl", "NaN\n", "a.jsonl: row 1: nan is no task id"),
        ("a.txt", "babyai_1\n\nbabyai\n", "a.txt: row 3: 'babyai' is no task id"),
        ("a.txt", "1" * 5000, "a.txt: row 1: '1111"),
        ("a.txt", "\n", "holds no task"),
        ("a.txt", "babyai_1\u2028babyai_2", "a.txt: row 1: 'babyai_1\\u2028babyai_2' is no task id"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_with_file_and_row(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as error:
        TaskNumbers({"test": str(tmp_path / name)}, "babyai")
    said = str(error.value)
    assert said.startswith("splits.test: ") and message in said and "\n" not in said and len(said) < 500


def test_bytes_that_are_no_text_and_a_missing_file_are_one_line(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe1\x00")
    for path in (tmp_path / "b.txt", tmp_path / "none.json", tmp_path):
        with pytest.raises(ConfigError, match=r"splits\.test: .*: cannot be read"):
            TaskNumbers({"test": str(path)}, "babyai")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([0, 5], "splits: give tasks such as"),
        ({"test": 5}, "splits.test: give [first, end), a list of ids such as"),
        ({"test": [0.5, 1]}, "splits.test: entry 1: 0.5 is no task id"),
        ({"train": [0, 9], "test": ["8", "20"]}, "splits.test: overlaps train (task 8)"),
        ({"train": ["20", "0"], "test": ["0", "7", "9"]}, "splits.test: overlaps train (task 0)"),
        ({"train": [0, 10**12], "test": [10**12 - 1, 10**13]}, "splits.test: overlaps train (task 9999"),
    ],
)  # fmt: skip
def test_bad_splits_are_one_line(splits, message):
    with pytest.raises(ConfigError) as error:
        TaskNumbers(splits, "babyai")
    assert message in str(error.value)


def test_babyai_plays_agentgyms_numbers_and_levels_pick_among_them():
    splits = {"train": [0, 400], "test": ["babyai_403", "babyai_404", "babyai_443"]}
    env = make_env("babyai", {"splits": splits, "compat": "agentgym"})
    assert [task.id for task in env.tasks("test", 3)] == [
        "babyai/GoToObjS6/10", "babyai/GoToLocalS8N7/10", "babyai/GoToObjS6/11",
    ]  # fmt: skip
    assert (env.task_count("train"), env.task_count("validation")) == (400, 0)
    picked = BabyAIEnv([4], splits=splits)
    assert [task.id for task in picked.tasks("test", 2)] == [
        "babyai/GoToObjS6-v1/10", "babyai/GoToObjS6-v1/11",
    ]  # fmt: skip
    assert picked.task_count("train") == 10 and BabyAIEnv([4]).task_count("train") is None
    copy = pickle.loads(pickle.dumps(picked))
    assert copy.tasks("train", 10) == picked.tasks("train", 10) and copy.reset(copy.tasks("train", 1)[0])
    with pytest.raises(ConfigError, match=r"splits\.test: 2 tasks, 3 were asked for"):
        picked.tasks("test", 3)


def test_a_server_plays_the_ids_of_a_file(tmp_path):
    (tmp_path / "t.txt").write_text("textcraft_5\ntextcraft_2\n")
    env = AgentGymEnv("http://127.0.0.1:1", {"test": str(tmp_path / "t.txt")}, server="textcraft")
    assert [task.id for task in env.tasks("test", 2)] == ["agentgym/textcraft/5", "agentgym/textcraft/2"]
    with pytest.raises(ConfigError, match="row 1: 'textcraft_5' is a task of textcraft; leave it out"):
        AgentGymEnv("http://127.0.0.1:1", {"test": str(tmp_path / "t.txt")}, server="babyai")
    copy = pickle.loads(pickle.dumps(env))
    (tmp_path / "t.txt").unlink()
    assert copy.task_count("test") == 2
