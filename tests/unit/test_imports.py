"""Imports: whatever is exported reads back the same, and nothing in a foreign file passes in silence."""

import copy
import io
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from builders import said, step, trajectory
from datasets import Dataset, DatasetDict, load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from depo import cli
from depo.config.base import ConfigError
from depo.config.schema import AnnotationConfig
from depo.data.conversations import conversations_of, unread_labels
from depo.data.formats import export_samples
from depo.data.imports import IMPORTS, import_trajectories
from depo.data.labels import label_all
from depo.data.rows import BadRow
from depo.data.store import read_trajectories, write_atomic, write_table
from depo.records import ContextTurn, Task, Told, Trajectory

ODD = (
    "\x00\x01\x07\t\n\x0b\x0c\r\x1b\x1c\x1d\x1e\x1f\x7f\x85\xa0\u2028\u2029\ufeff\ufffd\ud7ff\ue000\U0001f600"
    '"\\/é'
)
PIECES = st.sampled_from(
    [*ODD, "\ud83d", "\udc80", "a", " ", "\r\n", "[]", "{}", "OK", "Action:", "Thought:", "<think>"]
)
TEXT = st.lists(PIECES, max_size=6).map("".join)
REPLY = st.one_of(
    TEXT.filter(lambda text: text.strip()),
    st.builds("Thought: {}\nAction: {}x".format, TEXT, TEXT),
    st.sampled_from(["OK. I'll follow your instructions.", "Sure.", "I give up"]),
)
CONTEXT = st.lists(st.builds(ContextTurn, TEXT, REPLY), max_size=2).map(tuple)


@st.composite
def episodes(draw) -> list[Trajectory]:
    """Up to four imported episodes of two tasks, with the labels that their files gave."""
    drawn = []
    level = draw(TEXT)
    for index in range(draw(st.integers(1, 4))):
        turns = []
        for number in range(draw(st.integers(1, 3))):
            context = draw(CONTEXT) if number == 0 else ()
            turns.append(step(observation=draw(TEXT), text=draw(REPLY), context=context))
        reward = draw(st.floats(-1e300, 1e300))
        drawn.append(
            trajectory(
                turns, reward, index=index, success=draw(st.booleans()), system=draw(TEXT),
                task=Task("babyai", level, draw(st.sampled_from([0, 7, 2**63 - 1, -3])), "train"),
                told=Told(draw(st.sampled_from(["D", "U"]))),
            )
        )  # fmt: skip
    return drawn


def facts(t: Trajectory) -> tuple:
    """All that a file of another tool can hold of an episode."""
    label = t.told and t.told.label
    turns = tuple((s.observation, s.text, s.context) for s in t.steps)
    return t.task.id, t.system, turns, t.reward, t.success, label


def around(made: list[Trajectory], format_: str, folder: Path) -> tuple[list[Trajectory], list[str]]:
    """Trajectories exported and imported again, and what the export said."""
    write_table(folder / "round" / "a.parquet", made, Trajectory)
    lines: list[str] = []
    export_samples(folder / "round", AnnotationConfig(), format_, folder / "file", say=lines.append)
    import_trajectories(folder / "file", format_, "babyai", folder / "back", say=lambda line: None)
    return read_trajectories(folder / "back"), lines


DEMONSTRATIONS = ("openai", "trl-sft", "agentgym")


@pytest.mark.parametrize("format_", sorted(IMPORTS))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=episodes())
def test_whatever_is_exported_is_imported_the_same(format_, made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("around")
    write_table(folder / "stored" / "a.parquet", made, Trajectory)
    made = read_trajectories(folder / "stored")  # no table holds half a surrogate pair
    kept = [t for t in made if format_ not in DEMONSTRATIONS or t.told.label == "D"]
    if format_ == "trl-dpo":
        begins = [(t.task, t.system, t.steps[0].observation, t.steps[0].context) for t in made]
        mixed = {
            b
            for b in begins
            if {t.told.label for t, of in zip(made, begins, strict=True) if of == b} == {*"DU"}
        }
        kept = [t for t, of in zip(made, begins, strict=True) if of in mixed]
        replies = [[(s.observation, s.text) for s in t.steps] for t in kept]
        if any(replies.count(reply) > 1 for reply in replies):
            return  # equal ones are one, or no pair
    if not kept:
        with pytest.raises(ConfigError, match="export: "):
            around(made, format_, folder)
        return
    back, _ = around(made, format_, folder)
    assert Counter(map(facts, back)) == Counter(map(facts, kept))
    assert len({t.id for t in back}) == len(back)


def test_what_a_format_cannot_hold_is_left_out_and_counted(tmp_path):
    good = said("Near.", "go")
    aside = said("Two.", "drop", context=(ContextTurn("A note.", "Noted."),))
    made = [
        trajectory([good], told=Told("D")),
        trajectory([step(text=" \u2028")], told=Told("D"), index=1),
        trajectory([good], told=Told("U"), index=2),
        trajectory([good, aside], told=Told("D"), index=3),
    ]
    back, lines = around(made, "openai", tmp_path / "openai")
    assert Counter(map(facts, back)) == Counter(map(facts, [made[0], made[3]]))
    assert [line[:32] for line in lines] == [
        "1 of 4 trajectories left out: wi",
        "1 of 4 trajectories left out: un",
    ]
    back, lines = around(made, "trl-kto", tmp_path / "kto")
    assert Counter(map(facts, back)) == Counter(map(facts, [made[0], made[2]]))
    assert "with context between the agent's turns" in lines[1]
    back, lines = around(made, "llama-factory", tmp_path / "llama")
    assert len(back) == 3 and "last reply" in lines[1] and lines[2].startswith("1 assistant's messages are")
    made = [
        trajectory([said(str(n))], told=Told(mark), seed=n // 2, index=n) for n, mark in enumerate("DUDD")
    ]
    back, lines = around(made, "trl-dpo", tmp_path / "dpo")
    assert len(back) == 2 and lines == ["2 of 4 trajectories left out: in no pair of one task and prompt"]


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.floats(), st.integers(-2, 2**70), TEXT, st.sampled_from(["user", "gpt"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXT, inner, max_size=2)),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_whatever_stands_in_a_row_it_is_read_or_refused(data):
    row = copy.deepcopy(data.draw(st.sampled_from([*ROWS, *PAIRS.values()])))
    for _ in range(data.draw(st.integers(1, 2))):
        inside = row
        while isinstance(inside, dict | list) and inside:
            keys = list(inside) if isinstance(inside, dict) else range(len(inside))
            key = data.draw(st.sampled_from(keys))
            if data.draw(st.booleans()) or not isinstance(inside[key], dict | list):
                inside[key] = data.draw(JSON)
                break
            inside = inside[key]
    try:
        for conversation in conversations_of(row, data.draw(st.sampled_from(sorted(IMPORTS))), ""):
            unread_labels(row, conversation)
    except BadRow as error:
        assert str(error).isprintable() and len(str(error)) < 400


def chat(*messages, **row) -> dict:
    """A row of OpenAI's; messages are (role, content) or whole."""
    made = [m if isinstance(m, dict) else {"role": m[0], "content": m[1]} for m in messages]
    return {"messages": made, **row}


def shared(*messages, **row) -> dict:
    """A row of ShareGPT's, user and assistant by turns."""
    who = ("human", "gpt")
    made = [m if isinstance(m, dict) else {"from": who[n % 2], "value": m} for n, m in enumerate(messages)]
    return {"conversations": made, **row}


ACT = "Thought: near.\nAction: go"
GOOD = chat(("user", "A ball."), ("assistant", ACT))


def imported(rows, tmp_path, format_="openai", **options) -> tuple[list[Trajectory], list[str]]:
    """Trajectories of rows of JSON Lines (or of a file's bytes), in the rows' order, and what was said."""
    data = rows if isinstance(rows, bytes) else "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    (tmp_path / "rows.jsonl").write_bytes(data)
    lines: list[str] = []
    import_trajectories(
        tmp_path / "rows.jsonl", format_, "babyai", tmp_path / "in", say=lines.append, **options
    )
    return read_trajectories(tmp_path / "in"), lines


BAD = {
    "an empty reply": chat(("user", "A."), ("assistant", "")),
    "a blank reply": chat(("user", "A."), ("assistant", " \n\u2028")),
    "a reply of null": chat(("user", "A."), ("assistant", None)),
    "a null observation": chat(("user", None), ("assistant", ACT)),
    "the user last": chat(("user", "A."), ("assistant", ACT), ("user", "B.")),
    "the assistant first": chat(("assistant", ACT), ("user", "A."), ("assistant", ACT)),
    "two users": chat(("user", "A."), ("user", "B."), ("assistant", ACT)),
    "two assistants": chat(("user", "A."), ("assistant", ACT), ("assistant", ACT)),
    "a system message in the middle": chat(("user", "A."), ("system", "Be good."), ("assistant", ACT)),
    "two system messages": chat(("system", "A."), ("system", "B."), ("user", "C."), ("assistant", ACT)),
    "system twice": chat(("system", "A."), ("user", "C."), ("assistant", ACT), system="B."),
    "a role that is none": chat(("narrator", "A."), ("assistant", ACT)),
    "a picture": chat(("user", [{"type": "image_url", "image_url": {"url": "x"}}]), ("assistant", ACT)),
    "half a surrogate pair": chat(("user", "\ud83d"), ("assistant", ACT)),
    "half a pair in a reply": chat(("user", "A."), ("assistant", f"\udc80{ACT}")),
    "half a pair in the task": {**GOOD, "task_id": "babyai/\ud800/1"},
    "NaN": {**GOOD, "reward": float("nan")},
    "infinity": {**GOOD, "reward": float("-inf")},
    "a number without end": {**GOOD, "reward": 10**400},
    "NaN steps": {**GOOD, "steps": float("nan")},
    "steps that are no count": {**GOOD, "steps": -1},
    "two labels": {**GOOD, "label": True, "kto_tag": False},
    "a label that is a word": {**GOOD, "label": "desirable"},
    "a label that is a score": {**GOOD, "label": 2},
    "a label that is a fraction": {**GOOD, "label": 1.0},
    "a success that is a word": {**GOOD, "success": "yes"},
    "context only": chat(("user", "A."), {"role": "assistant", "content": ACT, "weight": 0}),
    "half a weight": chat(("user", "A."), {"role": "assistant", "content": ACT, "weight": 0.5}),
    "a mask": chat(("user", "A."), {"role": "assistant", "content": ACT, "mask": 1}),
    "an action beside a call": chat(
        ("user", "A."), {"role": "assistant", "content": ACT, "tool_calls": [{"function": {"name": "go"}}]}
    ),
    "equal sides": {"messages": [{"role": "user", "content": "A."}], "chosen": "x", "rejected": "x"},
    "half a pair": GOOD | {"chosen": "x"},
    "half a pair, text": GOOD | {"rejected": [{"role": "assistant", "content": ACT}]},
    "another environment": {**GOOD, "task_id": "webshop/x/1"},
    "no object": [1],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_row_is_named_and_refused_or_skipped_and_counted(bad, tmp_path):
    told = {"label": True} if isinstance(bad, dict) and "reward" not in bad and "label" not in bad else {}
    rows = [
        {**GOOD, "label": True},
        {**bad, **told} if isinstance(bad, dict) else bad,
        {**GOOD, "label": False},
    ]
    with pytest.raises(ConfigError, match=r"rows\.jsonl: row 2: ") as refused:
        imported(rows, tmp_path)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400
    assert not (tmp_path / "in").exists()
    back, lines = imported(rows, tmp_path, on_bad_row="skip")
    assert [t.reward for t in back] == [1.0, 0.0]
    assert lines[0].startswith("1 rows skipped: row 2: ")


def test_the_first_skipped_rows_are_named_and_all_are_counted(tmp_path):
    rows = b"\n".join([json.dumps(GOOD).encode(), b"{", b'{"a": 1, "a": 2}', b"[" * 9999, b"\xff"])
    back, (line,) = imported(rows, tmp_path, on_bad_row="skip")
    assert len(back) == 1 and line.startswith("4 rows skipped: row 2: not JSON (")
    assert 'row 3: not JSON that can be read (the key "a" stands twice' in line and line.endswith("; ...")
    with pytest.raises(ConfigError, match="none of 1 rows can be taken, row 1: not JSON"):
        imported(b"{", tmp_path, on_bad_row="skip")


def test_a_row_without_an_outcome_among_rows_that_have_one_is_bad(tmp_path):
    rows = [GOOD | {"label": True}, GOOD, GOOD | {"reward": 0.5}]
    with pytest.raises(ConfigError, match="row 2: tells no label, reward or success, as other rows do"):
        imported(rows, tmp_path)
    assert [t.reward for t in imported(rows, tmp_path, on_bad_row="skip")[0]] == [1.0, 0.5]


@pytest.mark.parametrize(
    "column",
    [
        {"is_good": False},
        {"chosen": True},
        {"score": 0.1},
        {"rating": 5},
        {"isCorrect": 1},
        {"preference": "bad"},
        {"anything": True},
        {"Label": True},
        {"thumbs_up": 0},
        {"final_reward": 0.5},
        {"Reward": 0},
        {"status": "failed"},
        {"acc": 0},
    ],
)
def test_a_column_that_looks_like_a_label_is_read_refused_or_waved_through(column, tmp_path):
    (name, value) = next(iter(column.items()))
    with pytest.raises(ConfigError, match=rf'row 1: the column "{name}" looks like a label and is not read'):
        imported([GOOD | column], tmp_path)
    assert imported([GOOD | column], tmp_path, label="none")[0][0].reward == 1.0
    assert imported([GOOD | column | {"label": False}], tmp_path)[0][0].reward == 0.0
    if value in (False, True):
        (read,), _ = imported([GOOD | column], tmp_path, label=name)
        assert (read.told.label, read.reward) == (("D", 1.0) if value else ("U", 0.0))
    else:
        with pytest.raises(ConfigError, match=f"row 1: `{name}` is .*, not true or false"):
            imported([GOOD | column], tmp_path, label=name)


def test_columns_that_judge_nothing_are_let_be_and_a_missing_label_column_is_named(tmp_path):
    rows = [GOOD | {"source": "x", "steps": 1, "level": 2, "tags": ["good"], "rating_text": "x" * 30}]
    assert len(imported(rows, tmp_path)[0]) == 1
    assert len(imported([rows[0] | {"reward": 1, "status": "done", "final_reward": 1}], tmp_path)[0]) == 1
    with pytest.raises(ConfigError, match="--label kind: no row has this column"):
        imported(rows, tmp_path, label="kind")


@pytest.mark.parametrize("tag", ["label", "kto_tag"])
@pytest.mark.parametrize("format_", ["openai", "llama-factory", "agentgym", "hf"])
def test_labels_are_read_under_both_names_in_every_format(format_, tag, tmp_path):
    row = shared("A.", ACT, item_id="a_1") if format_ in ("llama-factory", "agentgym") else GOOD
    back, _ = imported([row | {tag: True}, row | {tag: False}], tmp_path, format_)
    assert [(t.told.label, t.reward, t.success) for t in back] == [("D", 1.0, True), ("U", 0.0, False)]


def test_a_foreign_label_outlives_the_step_rule_and_it_is_said_how_many_would_not(tmp_path):
    long = chat(*[("user", "A."), ("assistant", ACT)] * 9)
    back, (line,) = imported([long | {"label": True}, GOOD | {"label": True}], tmp_path)
    assert [mark for _, mark in label_all(back, AnnotationConfig())[0]] == ["D", "D"]
    assert line.startswith("2 labels are obeyed; the published rules would change 1 of them")
    back, _ = imported([long], tmp_path)
    assert [mark for _, mark in label_all(back, AnnotationConfig())[0]] == ["D"]


OPENING = "OK. I'll follow your instructions and try my best to solve the task."


@pytest.mark.parametrize("loss", [{"loss": False}, {"loss": None}, {}])
@pytest.mark.parametrize("opening", [OPENING, "OK", "Ok.", "Sure, I am ready.", "Understood!"])
def test_an_opening_that_takes_note_is_context_and_no_step(loss, opening, tmp_path):
    first = {"from": "gpt", "value": opening, **loss}
    row = shared("The rules.", first, "A ball.", ACT, "A door.", ACT, item_id="a_1")
    (read,), lines = imported([row], tmp_path, "agentgym")
    assert (read.system, read.num_steps, read.steps[0].observation) == ("The rules.", 2, "A ball.")
    (read,), lines = imported([row], tmp_path, "llama-factory")
    assert (read.system, read.num_steps) == ("", 2)
    assert read.steps[0].context == (ContextTurn("The rules.", opening),)
    marked = "loss" in loss and loss["loss"] is False
    assert lines == [] if marked else lines[0].startswith("1 rows begin with an answer that takes note")


def test_a_first_reply_that_acts_or_is_followed_by_none_that_does_is_a_step(tmp_path):
    for first, second in ((f"OK. {ACT}", ACT), ("OK", "go"), ("no action", ACT), ("Oklahoma", ACT)):
        (read,), _ = imported([shared("A.", first, "B.", second)], tmp_path, "llama-factory")
        assert read.num_steps == 2
    with pytest.raises(ConfigError, match="row 1: no message is the agent's own"):
        imported([shared("The rules.", OPENING, item_id="babyai_3")], tmp_path, "agentgym")


@pytest.mark.parametrize(
    ("marks", "own"),
    [
        (("loss", [False, True, True]), [1, 2]),
        (("loss", [None, True, True]), [1, 2]),
        (("loss", [True, False, True]), [0, 2]),
        (("loss", [True, True, None]), [0, 1]),
        (("loss", [None, None, None]), [0, 1, 2]),
        (("weight", [0, 1, 1]), [1, 2]),
        (("weight", [0, None, None]), [1, 2]),
        (("weight", [1, None, None]), [0, 1, 2]),
        (("loss_weight", [0.0, 1.0, 1.0]), [1, 2]),
        (("train", [False, True, False]), [1]),
        (("loss_mask", [0, 1, 1]), [1, 2]),
    ],
)
def test_what_a_row_marks_as_not_trained_is_context(marks, own, tmp_path):
    key, values = marks
    said_ = [f"Thought: {n}.\nAction: go" for n in range(3)]
    turns = [{"from": "gpt", "value": text, key: value} for text, value in zip(said_, values, strict=True)]
    row = shared("A.", turns[0], "B.", turns[1], "C.", turns[2])
    (read,), _ = imported([row], tmp_path, "llama-factory")
    assert [s.text for s in read.steps] == [said_[n] for n in own]
    inside = [turn.text for s in read.steps for turn in s.context]
    assert inside == [said_[n] for n in range(max(own)) if n not in own]


@pytest.mark.parametrize("trained", [True, False, 1, 0])
def test_what_a_mask_means_is_seen_from_the_users_messages(trained, tmp_path):
    user = {"from": "human", "value": "A.", "mask": not trained}
    said_ = [{"from": "gpt", "value": ACT, "mask": mask} for mask in (not trained, trained)]
    (read,), _ = imported([shared(user, said_[0], user, said_[1])], tmp_path, "llama-factory")
    assert (read.num_steps, read.steps[0].context) == (1, (ContextTurn("A.", ACT),))
    for first in ("A.", user | {"mask": trained}):
        with pytest.raises(ConfigError, match=r"row 1: conversations\[2\]: `mask` may mean trained or not"):
            imported(
                [shared(first, said_[0], user if first != "A." else "A.", said_[1])],
                tmp_path,
                "llama-factory",
            )


def test_what_the_assistant_says_in_a_prompt_is_context(tmp_path):
    prompt = chat(("system", "Act."), ("user", "A."), ("assistant", ACT), ("user", "B."))["messages"]
    completion = chat(("assistant", "OK."), ("user", "C."), ("assistant", ACT))["messages"]
    row = {"prompt": prompt, "completion": completion, "label": False}
    for format_ in ("trl-kto", "hf", "trl-sft"):
        (read,), _ = imported([row], tmp_path, format_)
        assert [(s.observation, s.text) for s in read.steps] == [("B.", "OK."), ("C.", ACT)]
        assert (read.system, read.steps[0].context) == ("Act.", (ContextTurn("A.", ACT),))


HUMAN, BETTER, WORSE = (
    {"from": "human", "value": "A."},
    {"from": "gpt", "value": ACT},
    {"from": "gpt", "value": "no"},
)
PAIRS = {
    "LLaMA-Factory, ShareGPT": {"conversations": [HUMAN], "chosen": BETTER, "rejected": WORSE},
    "LLaMA-Factory, Alpaca": {"instruction": "A.", "input": "", "chosen": ACT, "rejected": "no"},
    "TRL, text": {"prompt": "A.", "chosen": ACT, "rejected": "no"},
    "TRL, messages": {
        "prompt": chat(("user", "A."))["messages"],
        "chosen": chat(("assistant", ACT))["messages"],
        "rejected": chat(("assistant", "no"))["messages"],
    },
    "TRL, prompt in both": {
        "chosen": chat(("user", "A."), ("assistant", ACT))["messages"],
        "rejected": chat(("user", "A."), ("assistant", "no"))["messages"],
    },
    "TRL, prompt in both and beside": {
        "prompt": "A.",
        "chosen": chat(("user", "A."), ("assistant", ACT))["messages"],
        "rejected": chat(("user", "A."), ("assistant", "no"))["messages"],
        "score_chosen": 7.0,
    },
    "ETO": {"id": "3", "prompt": [HUMAN], "chosen": [BETTER], "rejected": [WORSE]},
}  # fmt: skip


ROWS = [
    GOOD | {"label": True, "reward": 0.5, "success": True, "task_id": "a_1", "steps": 1, "system": "Act."},
    shared("Rules.", {"from": "gpt", "value": "OK", "loss": False}, "A.", ACT, item_id="a_1", tools="x"),
    chat(("user", "A."), {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "x"}}]}),
    {"instruction": "A.", "input": "B.", "output": ACT, "history": [["C.", ACT]]},
    {"prompt": [HUMAN], "completion": [BETTER], "label": True},
]


@pytest.mark.parametrize("format_", ["trl-dpo", "llama-factory", "hf"])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_pair_is_d_and_u_of_one_task(pair, format_, tmp_path):
    other = {"prompt": "Another.", "chosen": ACT, "rejected": "no"}
    back, _ = imported([pair, pair, other], tmp_path, format_)
    assert len(back) == 4 and len({t.task.id for t in back}) == 2
    pairs = Counter((t.steps[0].observation, t.steps[0].text, t.told.label, t.reward) for t in back)
    assert pairs == Counter(
        (seen, *one) for seen in ("A.", "Another.") for one in ((ACT, "D", 1.0), ("no", "U", 0.0))
    )


def test_columns_of_null_are_columns_that_are_missing(tmp_path):
    nothing = dict.fromkeys(
        ("chosen", "rejected", "label", "reward", "system", "prompt", "task_id", "steps", "tools")
    )
    rows = [nothing | GOOD, nothing | {"prompt": "A.", "completion": ACT}]
    assert [t.steps[0].action for t in imported(rows, tmp_path, "hf")[0]] == ["go", "go"]
    pair = nothing | {"messages": None, "prompt": "A.", "chosen": ACT, "rejected": "no"}
    assert len(imported([pair], tmp_path, "hf")[0]) == 2


def test_pairs_of_several_turns_count_what_follows_the_prompt(tmp_path):
    opening = [{"from": "human", "value": "Rules."}, {"from": "gpt", "value": "OK"}]
    row = {
        "prompt": [*opening, HUMAN],
        "chosen": [BETTER, HUMAN, BETTER],
        "rejected": [WORSE],
        "task_id": "web_4",
    }
    (one, other), _ = imported([row], tmp_path, "trl-dpo")
    assert (one.num_steps, other.num_steps, one.task, other.task) == (2, 1, one.task, one.task)
    assert one.steps[0].context == other.steps[0].context == (ContextTurn("Rules.", "OK"),)
    both = chat(("user", "A."), ("assistant", ACT), ("user", "B."))["messages"]
    sides = {
        name: [*both, {"role": "assistant", "content": text}]
        for name, text in (("chosen", "x"), ("rejected", "y"))
    }
    (one, other), _ = imported([sides], tmp_path, "trl-dpo")
    assert [s.text for s in one.steps] == ["x"] and one.steps[0].context == (ContextTurn("A.", ACT),)
    with pytest.raises(ConfigError, match="row 1: has no pair of `chosen` and `rejected`"):
        imported([GOOD], tmp_path, "trl-dpo")


CALL = {"name": "search", "arguments": {"q": "red é"}}
ACTION = json.dumps(CALL, ensure_ascii=False)


@pytest.mark.parametrize(
    ("said_", "text"),
    [
        ({"content": None, "tool_calls": [{"id": "1", "function": CALL}]}, f"Action: {ACTION}"),
        (
            {"content": "Look.", "tool_calls": [{"function": CALL | {"arguments": '{"q": "red é"}'}}]},
            f"Thought: Look.\nAction: {ACTION}",
        ),
        ({"content": "Thought: Look.", "function_call": CALL}, f"Thought: Look.\nAction: {ACTION}"),
        ({"content": "", "tool_calls": [CALL, CALL]}, f"Action: [{ACTION}, {ACTION}]"),
        ({"content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}, "a b"),
        ({"content": [{"type": "output_text", "text": ACT}], "tool_calls": None}, ACT),
        ({"content": ACT, "reasoning_content": "Hm."}, f"<think>\nHm.\n</think>\n\n{ACT}"),
    ],
)  # fmt: skip
def test_calls_of_tools_and_content_in_parts_are_read(said_, text, tmp_path):
    row = chat(
        ("developer", [{"type": "text", "text": "Act."}]), ("user", ["A", " ball."]),
        {"role": "assistant", **said_}, {"role": "tool", "tool_call_id": "1", "content": "one"},
        ("tool", "two"), ("assistant", ACT),
    )  # fmt: skip
    (read,), _ = imported([row], tmp_path)
    assert (read.system, [s.observation for s in read.steps]) == ("Act.", ["A ball.", "one\ntwo"])
    assert read.steps[0].text == text


def test_tools_and_pictures_that_are_not_read_are_told(tmp_path):
    rows = [GOOD | {"tools": "[]"}, GOOD | {"tools": [CALL], "images": []}, GOOD | {"tools": None}]
    _, lines = imported(rows, tmp_path)
    assert lines == [
        "`tools` of 2 rows is not read; write what the agent must know of it into the system prompt"
    ]


def test_llama_factorys_alpaca_form_is_read(tmp_path):
    row = {"instruction": "A.", "input": "B.", "output": ACT, "history": [["C.", "Thought: x\nAction: y"]]}
    (read,), _ = imported([row | {"system": "Act.", "kto_tag": False}], tmp_path, "llama-factory")
    assert (read.system, read.told.label) == ("Act.", "U")
    assert [(s.observation, s.action) for s in read.steps] == [("C.", "y"), ("A.\nB.", "go")]
    for history in ([["C."]], [["C.", ""]], ["C."], 3):
        with pytest.raises(ConfigError, match="row 1: `history`"):
            imported([row | {"history": history}], tmp_path, "llama-factory")


def test_sharegpts_tool_roles_are_read(tmp_path):
    call = {"from": "function_call", "value": json.dumps(CALL)}
    row = shared("A.", call, {"from": "observation", "value": "[]"}, ACT)
    (read,), _ = imported([row], tmp_path, "llama-factory")
    assert [(s.observation, s.action) for s in read.steps] == [("A.", ACTION), ("[]", "go")]
    assert not any(s.malformed for s in read.steps)


def test_a_rows_own_counts_are_held_against_ours(tmp_path):
    rows = [
        GOOD | {"steps": 1, "total_tokens": 40, "avg_tokens_per_step": 40.0},
        GOOD | {"steps": 2, "total_tokens": 41, "avg_tokens_per_step": 20.5},
        GOOD | {"steps": 5},
        GOOD | {"steps": ["a", "b"]},
    ]
    back, lines = imported(rows, tmp_path)
    assert lines == [
        "`steps` differs from the turns of the agent in 2 of 4 rows, most in row 3: 5, not 1",
        "`avg_tokens_per_step` differs from the `total_tokens` over these in 1 of 4 rows, most in row 2: "
        "20.5, not 41",
    ]
    assert [t.told for t in back] == [Told(None, 1, 40), Told(None, 2, 41), Told(None, 5), Told()]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
def test_lines_end_at_a_line_feed_whatever_mark_begins_the_file(encoding, ending, tmp_path):
    texts = [f"a{c}b" for c in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r"]
    rows = [json.dumps(chat(("user", text), ("assistant", ACT)), ensure_ascii=False) for text in texts]
    for file in (ending.join(rows) + ending, "[" + f",{ending}".join(rows) + f"]{ending}", ending.join(rows)):
        back, _ = imported(file.encode(encoding), tmp_path)
        assert sorted(t.steps[0].observation for t in back) == sorted(texts)


def test_exported_lines_are_split_alike_by_every_reader(tmp_path):
    made = [trajectory([said("a\x85b\u2028c\u2029d\x0b", observation=ODD)])]
    back, _ = around(made, "trl-kto", tmp_path)
    text = (tmp_path / "file").read_text()
    assert len(text.splitlines()) == len(text.split("\n")) - 1 == 1
    assert back[0].steps[0].observation == ODD


@pytest.mark.parametrize("after", ["", ",", "]]", '{"messages"', "] x"])
def test_an_array_that_breaks_off_is_named(after, tmp_path):
    with pytest.raises(ConfigError, match=r"rows\.jsonl: (row 2|after row [12]).*mend the file"):
        imported(f"[{json.dumps(GOOD)}{after}".encode(), tmp_path, on_bad_row="skip")


def test_a_data_sets_folder_is_its_rows_and_no_cache(tmp_path):
    Dataset.from_list([chat(("user", f"{n}."), ("assistant", ACT)) for n in range(4)]).save_to_disk(
        tmp_path / "d"
    )
    loaded = load_from_disk(tmp_path / "d")
    loaded.map(lambda row: {"n": len(row["messages"])})
    loaded.filter(lambda row: False)
    assert list((tmp_path / "d").glob("cache-*"))
    assert import_trajectories(tmp_path / "d", "hf", "babyai", tmp_path / "in") == 4
    shuffled = loaded.shuffle(seed=1).select([0, 1])
    shuffled.set_format("numpy")
    shuffled.save_to_disk(tmp_path / "two", num_shards=2)
    assert import_trajectories(tmp_path / "two", "hf", "babyai", tmp_path / "in") == 2
    DatasetDict(train=loaded).save_to_disk(tmp_path / "dict")
    with pytest.raises(ConfigError, match="dict: holds several data sets"):
        import_trajectories(tmp_path / "dict", "hf", "babyai", tmp_path / "no")
    (tmp_path / "d" / "state.json").unlink()
    with pytest.raises(ConfigError, match="d: no data set that can be read"):
        import_trajectories(tmp_path / "d", "hf", "babyai", tmp_path / "no")


def test_arrow_files_and_streams_are_read(tmp_path):
    table = pa.Table.from_pylist([GOOD, GOOD])
    for make in (pa.ipc.new_file, pa.ipc.new_stream):
        sink = io.BytesIO()
        with make(sink, table.schema) as writer:
            writer.write_table(table)
        (tmp_path / "rows.bin").write_bytes(sink.getvalue())
        assert import_trajectories(tmp_path / "rows.bin", "openai", "babyai", tmp_path / "in") == 2


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("babyai/Go/To/3", "babyai/Go/To/3"),
        ("babyai//0", "babyai//0"),
        ("babyai/x/-7", "babyai/x/-7"),
        ("webshop_12", "babyai/webshop/12"),
        (12, "babyai/imported/12"),
        ("item_007", "babyai/item_00/7"),
    ],
)
def test_names_of_tasks_are_kept(name, task, tmp_path):
    assert imported([GOOD | {"task_id": name}], tmp_path)[0][0].task.id == task


def test_names_that_are_no_number_or_too_large_a_one_are_tasks_of_their_own(tmp_path):
    names = ["babyai/x/99999999999999999999", "abc", "x٣", "babyai/x/007"]
    back, _ = imported([GOOD | {"task_id": name} for name in names], tmp_path)
    assert len({t.task.id for t in back}) == len(names)


def test_the_command_says_what_it_skipped_and_takes_a_label(tmp_path, capsys):
    rows = [GOOD | {"ok": False}, {"messages": []}, GOOD | {"ok": True}]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = ["import", str(tmp_path / "a.jsonl"), "--env", "babyai", "--out", str(tmp_path / "in")]
    command += ["--format", "openai", "--label", "ok"]
    assert cli.main(command) == 1
    assert capsys.readouterr().err.startswith(f"depo: {tmp_path}/a.jsonl: row 2: ")
    assert cli.main([*command, "--on-bad-row", "skip"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("1 rows skipped: row 2: ") and told[-1] == f"2 trajectories -> {tmp_path}/in"
    assert cli.main([*command, "--on-bad-row", "skip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"][0] == told[0]


def test_an_output_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD))
    (tmp_path / "file").touch()
    command = ["import", str(tmp_path / "a.jsonl"), "--format", "openai", "--env", "babyai", "--out"]
    assert cli.main([*command, str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err == f"depo: {tmp_path}/file: File exists; check the path\n"
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path, "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "file"]
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))
