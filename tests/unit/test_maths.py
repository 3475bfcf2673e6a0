"""Maths problems: what counts as an answer, public files, generated equations, the environment."""

from __future__ import annotations

import json
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depo.config.base import ConfigError
from depo.envs.check import check_env
from depo.envs.maths import judge, simuleq
from depo.envs.maths.answers import Answer, boxed, equal, final, number, readable
from depo.envs.maths.env import MathsEnv
from depo.envs.registry import make_env
from depo.records import Task


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("42", ["42", "42.0", "$42", "42 dollars", "The answer is 42.", "#### 42", r"\boxed{42}", "x = 42"],
         ["41", "42.1", "42 or 41", "41, 42", "40+2", r"6 \times 7", "7*6", "50-8", "42 thousand", "x"]),
        ("1234", ["1,234", "1234.00", r"1{,}234"], ["1,23,4", "123"]),
        ("1/2", ["0.5", r"\frac{1}{2}", r"\frac12", ".5", "2/4"], ["1", "2", "1/3", "1/0"]),
        ("-3", ["-3", r"$-3$"], ["3", "--3"]),
        ("10", ["10%", r"10\%"], ["0.01"]),
        (r"2\sqrt{3}", [r"\sqrt{12}", "2*sqrt(3)"], [r"\sqrt{3}", "3"]),
        ("(1,2)", ["(1, 2)"], ["(2,1)", "1"]),
        (r"\{1,2\}", ["2, 1", r"\{2,1\}"], ["1", "1,2,3"]),
        ("x^2+1", ["1+x^2"], ["x^2"]),
        (r"\text{Monday}", ["Monday", r"\text{Monday}"], ["Tuesday"]),
        (r"90^\circ", ["90"], ["45"]),
    ],
)  # fmt: skip
def test_an_answer_counts_by_its_value(gold, right, wrong):
    assert [text for text in right if not equal(Answer((gold,)), text)] == []
    assert [text for text in wrong if equal(Answer((gold,)), text)] == []


def test_several_unknowns_come_in_any_order_but_all_of_them_and_under_their_names():
    gold = Answer(("3", "1/2"), ("x", "y"))
    right = ["3, 1/2", "1/2 and 3", "x = 3, y = 0.5", "y=1/2; x=3", "(3, 1/2)", "$x=3$, $y=\\frac{1}{2}$"]
    wrong = ["3", "3, 1/2, 4", "x = 1/2, y = 3", "3, 3", "1, 2", "x = 3", "1/2, 1/2", "3 + 0, 1/2 + 1"]
    assert [text for text in right if not equal(gold, text)] == []
    assert [text for text in wrong if equal(gold, text)] == []
    assert equal(Answer(("1200", "7")), "7, 1,200")
    assert equal(Answer((r"\sqrt{8}", "1")), r"1, 2\sqrt{2}")


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"so \boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        (r"\boxed{1} then \fbox{2}", "2"),
        (r"\boxed 5$ done", "5"),
        (r"\boxed{never closed", ""),
        ("no box", ""),
    ],
)
def test_the_box_is_found(text, inside):
    assert boxed(text) == inside


def test_endless_algebra_is_a_wrong_answer_in_bounded_time_from_any_thread(monkeypatch):
    monkeypatch.setattr(judge, "SECONDS", 1)
    judge._helper(os.getpid()).close()  # the next one takes the new limit
    towers = ["9^{9^{9^{9^9}}}", "10000000!!!", r"\sum_{k=1}^{10^{12}} \sin(k!)"]
    found: list[tuple[bool, float]] = []

    def judge_all():
        for tower in towers:
            begin = time.perf_counter()
            found.append((equal(Answer((r"\sqrt{3}",)), tower), time.perf_counter() - begin))

    thread = threading.Thread(target=judge_all)
    thread.start()
    thread.join()
    assert [right for right, _ in found] == [False] * len(towers)
    assert max(seconds for _, seconds in found) < 60, "ten seconds of the clock, and a helper's start"
    assert equal(Answer((r"\sqrt{12}",)), r"2\sqrt{3}"), "the next comparison works again"


def test_many_threads_share_the_helper():
    pairs = [(rf"\sqrt{{{4 * n}}}", rf"2\sqrt{{{n}}}", True) for n in (2, 3, 5)] + [(r"\pi", r"2\pi", False)]
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda pair: judge.same_value(*pair[:2]), pairs * 5)
    assert list(answers) == [right for *_, right in pairs * 5]


def test_a_forked_process_has_a_helper_of_its_own():
    assert judge.same_value(r"\sqrt{4}", "2")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"yes" if judge.same_value(r"\sqrt{9}", "3") else b"no")
        judge._helper(os.getpid()).close()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 3) == b"yes"
    assert judge.same_value(r"\sqrt{16}", "4")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_readable_or_not_and_never_breaks(text):
    assert readable(text) in (True, False)
    assert not readable(text + "x" * 600)
    final(text), number(text)
    if not any(c in text for c in "\\^!"):
        assert equal(Answer(("3", "7777777")), text) is False


@given(st.fractions(max_denominator=99).filter(lambda f: abs(f) < 10**6))
def test_a_number_is_read_as_it_is_written(value):
    assert number(str(value)) == value
    assert number(rf"\frac{{{value.numerator}}}{{{value.denominator}}}") == value


def write(path, rows):
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


GSM8K = [
    {
        "question": f"Ann has {n} pears and gets {n} more. How many now?",
        "answer": f"It is {n}+{n}.\n#### {2 * n:,}",
    }
    for n in (3, 700, 9)
]
MATH = [
    {
        "problem": f"Half of {n}?",
        "level": f"Level {1 + n % 5}",
        "type": "Algebra",
        "solution": rf"So $\boxed{{\frac{{{n}}}{{2}}}}$.",
    }
    for n in range(1, 11)
]
MATH_500 = [
    {
        "problem": f"Half of {n}?",
        "level": 2,
        "subject": "Algebra",
        "unique_id": f"test/{n}",
        "solution": "Thus.",
        "answer": rf"\frac{{{n}}}{{2}}",
    }
    for n in range(4)
]
SIMULEQ = [
    {"iIndex": 1, "sQuestion": "Two numbers add up to 7, differ by 1?", "lSolutions": [4.0, 3.0]},
    {"iIndex": 2, "question": "x + y = 3, x - y = 2?", "answer": {"x": 2.5, "y": 0.5}},
    {"iIndex": 3, "problem": "The larger of 2 and 5?", "solution": "5"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "name", "rows", "answers"),
    [
        ("gsm8k", "test.jsonl", GSM8K, {0: "6", 1: "1,400"}),
        ("gsm8k", "test.parquet", GSM8K, {0: "6", 1: "1400"}),
        ("math", "math.jsonl", MATH, {0: "1/2", 9: "5"}),
        ("math", "math.json", MATH, {2: r"\frac32"}),
        ("math", "math500.jsonl", MATH_500, {3: "1.5"}),
        ("simuleq", "simuleq.json", SIMULEQ, {0: "3, 4", 1: "x=2.5, y=1/2", 2: "5"}),
    ],
)
def test_public_files_load_as_test_tasks(tmp_path, dataset, name, rows, answers):
    options = {"dataset": dataset, "path": write(tmp_path / name, rows)}
    env = MathsEnv(**options)
    tasks = {task.seed: task for task in env.tasks("test", len(rows))}
    assert sorted(tasks) == list(range(len(rows)))
    for row, answer in answers.items():
        question = next(v for k, v in rows[row].items() if k in ("question", "problem", "sQuestion"))
        assert env.reset(tasks[row]) == f"Problem: {question}"
        result = env.step(answer)
        assert (result.reward, result.terminated, result.info) == (
            1.0,
            True,
            {"valid": True, "success": True},
        )
    assert [check for check in check_env("maths", options) if not check.ok] == []
    with pytest.raises(ConfigError, match="holds test tasks only, no train tasks"):
        env.tasks("train", 1)
    with pytest.raises(ConfigError, match=f"has only {len(rows)} different test tasks, 99 were asked for"):
        env.tasks("test", 99)


def test_math_as_a_folder_of_problems_takes_its_levels_in_turn(tmp_path):
    for n, row in enumerate(MATH):
        (tmp_path / "algebra").mkdir(exist_ok=True)
        (tmp_path / "algebra" / f"{n}.json").write_text(json.dumps(row))
    env = MathsEnv("math", str(tmp_path))
    tasks = env.tasks("test", 5)
    assert [task.level for task in tasks] == [f"math-{level}" for level in range(1, 6)]
    assert env.tasks("test", 10)[:5] == tasks
    assert env.reset(Task("maths", "math-5", 8, "test")) == "Problem: Half of 9?"


def test_a_question_that_stands_twice_in_a_file_is_one_task(tmp_path):
    env = MathsEnv("gsm8k", write(tmp_path / "twice.jsonl", [*GSM8K, GSM8K[1]]))
    assert sorted(task.seed for task in env.tasks("test", 3)) == [0, 1, 2]


G, M = GSM8K[0], MATH[0]


@pytest.mark.parametrize(
    ("dataset", "name", "content", "message"),
    [
        ("gsm8k", "a.jsonl", json.dumps(G)[:-9], "row 1: not JSON"),
        ("gsm8k", "a.jsonl", "", "holds no case"),
        ("gsm8k", "a.jsonl", "[]", "row 1: expected an object, got list"),
        ("gsm8k", "a.jsonl", json.dumps({"question": "?"}), "row 1: answer: missing"),
        ("gsm8k", "a.jsonl", json.dumps({**G, "answer": 6}), "row 1: answer: expected some text, got 6"),
        ("gsm8k", "a.jsonl", json.dumps({**G, "answer": "6"}), "row 1: answer: nothing after '####'"),
        ("gsm8k", "a.jsonl", json.dumps({**G, "question": " "}), "row 1: question: expected some text"),
        ("gsm8k", "a.json", json.dumps(G), "expected a list of problems, got dict"),
        ("gsm8k", "a.json", "[]", "holds no problem"),
        ("gsm8k", "a.json", json.dumps([{**G, "id": 7}, {**G, "id": 7}]), "row 2: id: 7 is that of"),
        ("gsm8k", "a.parquet", "PAR1", "not a Parquet file"),
        ("math", "a.json", json.dumps([{**M, "solution": "5"}]), r"row 1: solution: holds no \boxed{answer}"),
        ("math", "a.json", json.dumps([{**M, "level": None}]), "row 1: level: missing"),
        ("math", "a.json", json.dumps([M, {**M, "problem": 3}]), "row 2: problem: expected some text, got 3"),
        ("simuleq", "a.json", json.dumps([{"question": "?", "answer": [[]]}]), "answer: expected a number"),
        ("simuleq", "a.json", json.dumps([{"question": "?", "answer": []}]), "row 1: answer: empty"),
        ("simuleq", "a.json", json.dumps([{"answer": 1}]), "row 1: question: missing; give one of question"),
    ],
)  # fmt: skip
def test_a_malformed_file_names_file_row_and_field(tmp_path, dataset, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ConfigError) as error:
        make_env("maths", {"dataset": dataset, "path": str(path)})
    assert str(error.value).startswith(f"env.options.path: {path}: ")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "svamp"}, "dataset: give gsm8k, math or simuleq, not 'svamp'"),
        ({"dataset": "gsm8k"}, "path: gsm8k needs its public file, from github.com/openai/grade-school-math"),
        ({"dataset": "math"}, "path: math needs its public file, from github.com/hendrycks/math"),
        ({"dataset": "math", "path": "/nowhere"}, "path: /nowhere: cannot be read"),
        ({"path": 3}, "path: give a file's path, not 3"),
        ({"unknowns": [4]}, "unknowns: give a list of 2, 3 or both"),
        ({"unknowns": 2}, "unknowns: give a list of 2, 3 or both"),
    ],
)
def test_bad_options_are_one_line_with_the_mend(options, message):
    with pytest.raises(ConfigError) as error:
        make_env("maths", options)
    assert f"env.options.{message}" in str(error.value)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([2, 3]))
def test_generated_equations_have_the_answer_they_claim_and_no_other(seed, unknowns):
    problem = simuleq.generate(seed, unknowns)
    assert problem == simuleq.generate(seed, unknowns)
    assert len(problem.answer.values) == unknowns == len(set(problem.answer.values))
    assert all(name in problem.question for name in problem.answer.names)
    assert equal(problem.answer, str(problem.answer))
    assert equal(problem.answer, ", ".join(reversed(problem.answer.values)))
    off = [str(Fraction(value) + 1) for value in problem.answer.values]
    assert not equal(problem.answer, ", ".join(off))


def test_plain_equations_hold_for_the_answer():
    plain = [p for p in (simuleq.generate(seed, 2) for seed in range(80)) if p.answer.names == ("x", "y")]
    assert len(plain) > 5
    for problem in plain:
        values = dict(zip("xy", map(Fraction, problem.answer.values), strict=True))
        equations = [part for part in problem.question.replace(" and ", ", ").split(", ") if "=" in part]
        for equation in equations:
            left, right = equation.rstrip(".?").split(" = ")
            left = left.split(": ")[-1].split("such that ")[-1].split("satisfy ")[-1]
            total = Fraction(0)
            for term in left.replace("- ", "-").replace("+ ", "").split():
                factor = term[:-1]
                total += Fraction({"": 1, "-": -1}.get(factor, factor)) * values[term[-1]]
            assert total == Fraction(right)


def test_the_wording_and_the_order_do_not_make_another_problem():
    rows = [((2, 3), Fraction(5)), ((4, 1), Fraction(7))]
    turned = [((1, 4), Fraction(7)), ((3, 2), Fraction(5))]
    assert (
        simuleq._key(rows)
        == simuleq._key(turned)
        != simuleq._key([((2, 3), Fraction(5)), ((4, 1), Fraction(8))])
    )


def test_generated_splits_share_no_equations_and_a_short_list_is_a_prefix():
    env = MathsEnv()
    keys = {}
    for split in ("train", "validation", "test"):
        tasks = env.tasks(split, 100)
        assert env.tasks(split, 7) == tasks[:7]
        assert [task.level for task in tasks[:4]] == ["simuleq-2", "simuleq-3"] * 2
        keys[split] = {simuleq.generate(t.seed, int(t.level[-1])).key for t in tasks}
        assert len(keys[split]) == 100
    assert not keys["train"] & keys["test"] and not keys["validation"] & (keys["train"] | keys["test"])


def test_one_answer_ends_the_problem_and_what_is_none_does_not():
    env = MathsEnv()
    (task,) = env.tasks("train", 1)
    question = env.reset(task)
    for text in ("", "no idea", "x" * 501, "\x00", "去红球", "[[]]"):
        result = env.step(text)
        assert result.info == {"valid": False} and not result.terminated and question in result.observation
    state = env.snapshot()
    wrong = env.step("1000, 1000")
    assert (wrong.reward, wrong.terminated, wrong.info) == (0.0, True, {"valid": True, "success": False})
    late = env.step("3")
    assert late.info == {"valid": False, "success": False} and late.terminated
    env.restore(state)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.step(str(simuleq.generate(task.seed, 2).answer)).reward == 1.0


@pytest.mark.parametrize("task", [Task("maths", "simuleq-9", 0, "test"), Task("maths", "gsm8k", 0, "test")])
def test_a_level_that_there_is_not_is_refused(task):
    with pytest.raises(ConfigError, match="no level"):
        MathsEnv().reset(task)


def test_a_row_that_there_is_not_is_refused(tmp_path):
    env = MathsEnv("gsm8k", write(tmp_path / "a.jsonl", GSM8K))
    for task in (Task("maths", "gsm8k", 9, "test"), Task("maths", "math-1", 0, "test")):
        with pytest.raises(ConfigError, match="take tasks from tasks"):
            env.reset(task)
