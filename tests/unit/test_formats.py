"""Files of other tools: what is exported reads back, and what is malformed is named by file and row."""

import json
from pathlib import Path

import pytest
from builders import renderer, said, trajectory
from datasets import Dataset, load_dataset

from depo import cli
from depo.config.base import ConfigError
from depo.config.load import dump_config, load_config
from depo.config.runtime import RuntimeConfig
from depo.config.schema import AnnotationConfig, EnvConfig, ExperimentConfig, RoundConfig, StudentConfig
from depo.data.formats import export_samples
from depo.data.imports import IMPORTS, import_trajectories
from depo.data.labels import label_all
from depo.data.samples import make_sample
from depo.data.store import read_table, read_trajectories, write_table
from depo.pipeline import check
from depo.records import Sample, Told, Trajectory
from depo.report.viewer import sample_text
from depo.stages.annotate import SAMPLES, annotate
from depo.stages.generate import generate

KEEP = AnnotationConfig(failures="undesirable")


def episodes() -> list[Trajectory]:
    """Two tasks with both labels, one of them begun with a system prompt."""
    good = [said("É near.", "turn left"), said("Done.", "drop", observation="A “door”.")]
    bad = [said("Hm.", "wait"), said("no action here", "", observation="Nothing.")]
    return [
        trajectory(steps, reward=reward, seed=seed, system=system, index=index)
        for seed, system in ((3, "Act."), (4, ""))
        for index, (steps, reward) in enumerate(((good, 0.95), (bad, 0.0), (good[:1], 0.97)))
    ]


@pytest.fixture
def written(tmp_path) -> Path:
    write_table(tmp_path / "round" / "a.parquet", episodes(), Trajectory)
    return tmp_path / "round"


def export(folder: Path, format_: str, name: str = "out") -> Path:
    out = folder.parent / name
    assert export_samples(folder, KEEP, format_, out) > 0
    return out


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def told(trajectories: list[Trajectory]) -> list[tuple]:
    """What a conversation is made of, in no order."""
    return sorted(
        (t.task.id, t.system, t.reward, t.success, *((s.observation, s.text, s.action) for s in t.steps))
        for t in trajectories
    )


@pytest.mark.parametrize("format_", ["trl-kto", "llama-factory", "agentgym", "hf"])
def test_what_is_exported_is_imported_alike(format_, written, tmp_path):
    count = import_trajectories(export(written, format_), format_, "babyai", tmp_path / "in")
    back = read_trajectories(tmp_path / "in")
    before = [t for t in episodes() if format_ != "agentgym" or t.success]
    assert count == len(back) == len(before) and told(back) == told(before)
    assert len({t.id for t in back}) == len(back)
    labels = {t.task.id: mark for t, mark in label_all(back, KEEP)[0]}
    assert set(labels) == {"babyai/GoToRedBall/3", "babyai/GoToRedBall/4"}


def test_rows_that_tell_nothing_are_demonstrations_and_tasks_are_what_begins_alike(written, tmp_path):
    rows = [{"messages": row["messages"]} for row in lines(export(written, "openai"))]
    (tmp_path / "bare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_trajectories(tmp_path / "bare.jsonl", "openai", "babyai", tmp_path / "in")
    back = read_trajectories(tmp_path / "in")
    assert [t.reward for t in back] == [1.0] * 4 and all(t.success for t in back)
    assert len({t.task.id for t in back}) == 2
    assert {s.text for t in back for s in t.steps} == {
        s.text for t in episodes() if t.success for s in t.steps
    }


def test_trl_rows_have_its_columns(written):
    kto, sft, dpo = (lines(export(written, f"trl-{name}", name)) for name in ("kto", "sft", "dpo"))
    assert {row["label"] for row in kto} == {True, False} and len(kto) == 6
    assert {row["completion"][0]["role"] for row in kto} == {"assistant"}
    assert [m["role"] for m in sft[0]["messages"]][-1] == "assistant" and len(sft) == 4
    assert len(dpo) == 4 and all({"prompt", "chosen", "rejected", "task_id"} < row.keys() for row in dpo)
    for row in dpo:
        assert row["prompt"][-1]["role"] == "user"
        assert row["rejected"][-1]["content"] != row["chosen"][-1]["content"]


def test_agentgym_rows_begin_with_instructions_that_are_not_trained(written):
    rows = json.loads(export(written, "agentgym").read_text())
    first = next(row for row in rows if row["item_id"] == "babyai/GoToRedBall/3")["conversations"]
    assert first[0] == {"from": "human", "value": "Act.", "loss": None}
    assert [turn["loss"] for turn in first if turn["from"] == "gpt"][:2] == [False, True]
    other = next(row for row in rows if row["item_id"] == "babyai/GoToRedBall/4")["conversations"]
    assert other[0]["value"] == "You see: red ball 1."


def test_a_file_as_agentgym_publishes_them(tmp_path):
    turns = [
        {"from": "human", "loss": None, "value": "You control a robot."},
        {"from": "gpt", "loss": False, "value": "OK. I'll follow your instructions."},
        {"from": "human", "loss": None, "value": "Your goal: go to the ball."},
        {"from": "gpt", "loss": True, "value": "Thought:\nIt is near.\n\nAction:\ngo to ball 1"},
    ]
    (tmp_path / "train.json").write_text(json.dumps([{"item_id": "babyai_17", "conversations": turns}]))
    assert import_trajectories(tmp_path / "train.json", "agentgym", "babyai", tmp_path / "in") == 1
    (read,) = read_trajectories(tmp_path / "in")
    assert (read.task.level, read.task.seed, read.system) == ("babyai", 17, "You control a robot.")
    (step,) = read.steps
    assert (step.thought, step.action, step.malformed) == ("It is near.", "go to ball 1", False)
    assert (read.reward, read.success, step.reward) == (1.0, True, 1.0)


def test_hugging_face_datasets_are_read_and_written(written, tmp_path):
    out = export(written, "hf", "data.parquet")
    loaded = load_dataset("parquet", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 6 and loaded[0]["prompt"][-1]["role"] == "user"
    loaded.save_to_disk(tmp_path / "saved")
    import_trajectories(tmp_path / "saved", "hf", "babyai", tmp_path / "in")
    assert told(read_trajectories(tmp_path / "in")) == told(episodes())
    plain = Dataset.from_list([{"prompt": "Hello?", "completion": "Thought: x\nAction: wave"}])
    plain.to_parquet(tmp_path / "plain.parquet")
    import_trajectories(tmp_path / "plain.parquet", "hf", "babyai", tmp_path / "plain")
    assert read_trajectories(tmp_path / "plain")[0].steps[0].action == "wave"


def chat(*roles: str) -> list[dict]:
    return [{"role": role, "content": "x"} for role in roles]


def turns(*who: str) -> list[dict]:
    return [{"from": name, "value": "x"} for name in who]


GOOD = {
    "openai": {"messages": chat("user", "assistant")},
    "trl-kto": {"prompt": chat("user"), "completion": chat("assistant"), "label": True},
    "llama-factory": {"conversations": turns("human", "gpt")},
    "agentgym": {"item_id": "babyai_1", "conversations": turns("human", "gpt")},
    "trl-sft": {"messages": chat("user", "assistant")},
    "trl-dpo": {"prompt": "x", "chosen": "y", "rejected": "z"},
    "hf": {"messages": chat("user", "assistant")},
}


@pytest.mark.parametrize(
    ("format_", "row", "problem"),
    [
        ("openai", {"messages": chat("user", "assistant", "user")}, "must end with an assistant's message"),
        ("openai", {"messages": chat("system", "assistant")}, "message 2 is of role 'assistant'; after"),
        ("openai", {"messages": [{"role": "user"}]}, r"messages\[1\]: has no `content`"),
        ("openai", {"messages": [{"role": "user", "content": [1]}]}, "`content` holds a part 1, not text"),
        ("openai", {"messages": "hi"}, '`messages` is "hi", not a list'),
        ("openai", {"messages": []}, "must end with an assistant's message"),
        ("openai", {"prompt": []}, "has no `messages`; check --format"),
        ("openai", [], "is list, not an object"),
        ("trl-kto", {"prompt": "x", "completion": "y"}, "has no `label`"),
        ("trl-kto", {"prompt": "x", "completion": "y", "label": 2}, "`label` is 2, not true or false"),
        ("trl-kto", {"prompt": 3, "completion": "y", "label": True}, "`prompt` is 3, not a list or text"),
        ("llama-factory", {"conversations": turns("human", "robot")}, r"2\]: from \"robot\" is"),
        ("llama-factory", {"conversations": ["x"]}, r"conversations\[1\]: is str, not an object"),
        ("llama-factory", GOOD["llama-factory"] | {"reward": "high"}, '`reward` is "high", not a number'),
        ("agentgym", {"conversations": turns("human", "gpt")}, "has no `item_id`"),
        ("agentgym", GOOD["agentgym"] | {"item_id": "webshop/x/1"}, 'environment "webshop", not of .babyai.'),
        ("hf", {"messages": None}, "has no `messages`"),
    ],
)  # fmt: skip
def test_a_malformed_row_is_one_line_that_names_file_and_row(format_, row, problem, tmp_path):
    for text in (f"{json.dumps(GOOD[format_])}\n{json.dumps(row)}\n", json.dumps([GOOD[format_], row])):
        (tmp_path / "rows.json").write_text(text)
        with pytest.raises(ConfigError, match=rf"rows\.json: row 2: .*{problem}") as error:
            import_trajectories(tmp_path / "rows.json", format_, "babyai", tmp_path / "in")
        assert "\n" not in str(error.value) and not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"messages": [', r"row 1: not JSON \(.*line 1, column"),
        (b'[{"messages": 1}, ', r"row [12]: "),
        (b"", "holds no row"),
        (b"\xff\xfe\x00", "neither JSON, Parquet nor Arrow"),
        (b"PAR1 cut", "cannot be read"),
    ],
)
@pytest.mark.parametrize("format_", IMPORTS)
def test_an_unreadable_file_is_named(format_, content, problem, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"/file: {problem}"):
        import_trajectories(tmp_path / "file", format_, "babyai", tmp_path / "in")


def test_the_command_imports_and_refuses(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD["openai"]))
    command = ["import", str(tmp_path / "a.jsonl"), "--env", "babyai", "--out", str(tmp_path / "in")]
    assert cli.main([*command, "--format", "openai", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 1, "out": str(tmp_path / "in"), "notes": []}
    assert len(read_trajectories(tmp_path / "in")) == 1
    assert cli.main([*command, "--format", "agentgym"]) == 1
    assert capsys.readouterr().err.startswith(f"depo: {tmp_path}/a.jsonl: row 1: has no `conversations`")
    with pytest.raises(SystemExit):
        cli.main([*command, "--format", "csv"])


def test_an_imported_round_goes_the_way_of_any_other(written, tmp_path):
    import_trajectories(export(written, "trl-kto"), "trl-kto", "babyai", tmp_path / "in")
    round_ = RoundConfig(name="others", policy={"kind": "imported", "path": str(tmp_path / "in")})
    stage = (round_, "", EnvConfig(id="babyai"), StudentConfig(), RuntimeConfig(), 0, tmp_path / "taken")
    outcome = generate(*stage)
    assert (outcome.rows, outcome.errors, outcome.metrics["tasks"]) == (6, 0, 2)
    annotate(tmp_path / "taken", KEEP, renderer(), tmp_path / "samples")
    samples = read_table(tmp_path / "samples" / SAMPLES, Sample)
    assert {(s.label, s.policy) for s in samples} == {("D", "imported"), ("U", "imported")}
    with pytest.raises(
        ConfigError, match=r"/in: task babyai/.* is of another environment than env.id='webshop'"
    ):
        generate(round_, "", EnvConfig(id="webshop"), *stage[3:])


def test_annotation_says_what_the_rules_and_the_tokenizer_would_change(tmp_path, capsys):
    good = said("Near.", "go")
    right = make_sample(trajectory([good]), "D", "raw", renderer()).num_tokens
    made = [
        trajectory([good] * steps, index=steps, told=Told("D", None, tokens))
        for steps, tokens in ((1, right), (2, 2 * right + 5), (9, 9 * right - 30))
    ]
    write_table(tmp_path / "round" / "a.parquet", made, Trajectory)
    metrics = annotate(tmp_path / "round", AnnotationConfig(), renderer(), tmp_path / "out").metrics
    lines = capsys.readouterr().out.splitlines()
    assert metrics["rules_differ"] == 1 and lines[0].startswith("annotate: the rules would change 1 imported")
    assert lines[1] == (
        "annotate: `total_tokens` differs from the student's tokens in 2 of 3 imported trajectories, most in "
        f"{made[2].id}: {9 * right - 30}, not {9 * right}"
    )
    own = [trajectory([good]), trajectory([good], reward=0.8, index=1)]
    write_table(tmp_path / "own" / "a.parquet", own, Trajectory)
    annotate(tmp_path / "own", AnnotationConfig(), renderer(), tmp_path / "out")
    assert capsys.readouterr().out == ""


def test_an_import_that_is_not_there_is_refused_before_the_run(tmp_path):
    policy = {"kind": "imported", "path": str(tmp_path / "nowhere")}
    rounds, bc = (
        [{"name": "others", "policy": policy}],
        {"objective": "sft", "init": "student", "samples": "others"},
    )
    config = ExperimentConfig(name="x", rounds=rounds, methods={"bc": bc})
    with pytest.raises(ConfigError, match=r"rounds\.others\.policy\.path: nothing in .*nowhere"):
        check(config, set())


def test_the_commands_formats_are_those_that_exist(written, tmp_path):
    assert set(cli.IMPORTS) == set(IMPORTS)
    for format_ in cli.EXPORTS:
        assert export(written, format_, format_).stat().st_size > 0


def test_a_round_without_trajectories_is_named(tmp_path, capsys):
    demo = Path(__file__).parents[2] / "experiments" / "configs" / "babyai-tiny.yaml"
    runs = ["--set", f"runtime.runs_dir={tmp_path}"]
    assert cli.main(["export", str(demo), "teacher", "--out", str(tmp_path / "o"), *runs]) == 1
    missing = f"{tmp_path}/babyai-tiny/trajectories/teacher: no Parquet file there"
    assert capsys.readouterr().err == f"depo: {missing}; run the stage that writes it\n"
    assert cli.main(["data", "show", str(demo), "teacher", *runs]) == 1
    assert capsys.readouterr().err.startswith("depo: ")


def test_an_export_of_nothing_is_refused(written, tmp_path):
    with pytest.raises(ConfigError, match="no trajectory that is kept"):
        export_samples(written, AnnotationConfig(kappa0=1, kappa1=0.5, kappa2=0.5), "openai", tmp_path / "o")
    with pytest.raises(ConfigError, match="no task with both labels"):
        export_samples(written, AnnotationConfig(), "trl-dpo", tmp_path / "o")


def test_a_shown_sample_tells_thought_from_action_with_and_without_colour():
    sample = make_sample(episodes()[0], "D", "raw", renderer())
    plain = sample_text(sample, renderer().tokenizer.decode, color=False).splitlines()
    assert plain[0].startswith(f"── {sample.id} · babyai/GoToRedBall/3")
    assert plain[1].endswith("trained: ⟨thought⟩ ⟪action⟫")
    assert plain[2:] == [
        "<|system|>Act.<|end|><|user|>You see: red ball 1.<|end|><|assistant|>",
        "⟨Thought: É near.⟩",
        "⟪Action: turn left<|end|>⟫",
        "<|user|>A “door”.<|end|><|assistant|>",
        "⟨Thought: Done.⟩",
        "⟪Action: drop<|end|>⟫",
    ]
    painted = sample_text(sample, renderer().tokenizer.decode, color=True)
    assert "\x1b[33mThought: Done.\x1b[0m\n\x1b[32mAction: drop<|end|>\x1b[0m" in painted
    assert "⟨" not in painted


def test_a_line_break_inside_the_actions_first_token_stays_outside_its_brackets():
    merged = renderer(merges=(("Ċ", "A"),))
    sample = make_sample(episodes()[2], "D", "raw", merged)
    shown = sample_text(sample, merged.tokenizer.decode, color=False).splitlines()
    assert shown[-2:] == ["⟨Thought: É near.⟩", "⟪Action: turn left<|end|>⟫"]


def test_the_command_shows_a_sample_of_a_run_directory_by_its_id(tmp_path, capsys):
    demo = Path(__file__).parents[2] / "experiments" / "configs" / "babyai-tiny.yaml"
    run_dir = tmp_path / "babyai-tiny"
    renderer().tokenizer.save_pretrained(run_dir / "student" / "model")
    (run_dir / "config.yaml").write_text(dump_config(load_config(demo, [f"runtime.runs_dir={tmp_path}"])))
    samples = [make_sample(t, "D", "raw", renderer()) for t in episodes()[:2]]
    write_table(run_dir / "samples" / "student" / SAMPLES, samples, Sample)
    assert cli.main(["data", "show", str(run_dir), samples[1].id[:12]]) == 0
    expected = sample_text(samples[1], renderer().tokenizer.decode, color=False)
    assert capsys.readouterr().out == f"{expected}\n"
    assert cli.main(["data", "show", str(run_dir), "student", "--view", "raw", "-n", "2"]) == 0
    assert capsys.readouterr().out.count("── ") == 2
    assert cli.main(["data", "show", str(run_dir), "student", "--label", "U"]) == 1
    assert capsys.readouterr().err == "depo: student: no sample labelled U of view 'rephrased'\n"
