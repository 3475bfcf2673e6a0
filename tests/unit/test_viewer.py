"""`depo view`: the files it writes, what they hold, and what it says of bad input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from viewer_help import episode, episodes, make_config, trees, write_run, write_shards

from depo.cli import main
from depo.commands.view import find_sources, read_by_task
from depo.evaluation.metrics import judged
from depo.records import Trajectory
from depo.report.browse import ASSETS, CHUNK_CHARACTERS, INVALID, MALFORMED, REPEATED, Source, write_view
from depo.search.episode import TurnControl
from depo.stages.evaluate import plain_observations, to_episode

TURN = ("observation", "thought", "action", "reward", "marks", "tokens", "input", "logprob", "reply")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(make_config(tmp_path_factory.mktemp("runs")))


def value_of(script: Path):
    """What a data file hands to the page."""
    text = script.read_text(encoding="utf-8")
    return json.loads(re.fullmatch(r"viewer\.\w+\((?:\"\w+\",)?(.*)\);\n", text, flags=re.DOTALL)[1])


def shown(out: Path, key: str) -> dict[str, list[dict]]:
    """Task id to rollouts with texts in place, read back as the page does."""
    entry = next(e for e in value_of(out / "catalogue.js")["sources"] if e["key"] == key)
    index = value_of(out / "data" / f"{entry['index']}.js")
    chunks = [value_of(out / "data" / f"{name}.js") for name in index["chunks"]]
    found = {}
    for id_, _level, _seed, _goal, chunk, at, summaries in index["tasks"]:
        texts, rollouts = chunks[chunk]["texts"], chunks[chunk]["tasks"][at]
        for rollout in rollouts:
            turns = [dict(zip(TURN, turn, strict=True)) for turn in rollout["steps"]]
            for turn in turns:
                turn |= {name: texts[turn[name]] for name in TURN[:3]}
            rollout |= {"steps": turns, "system": texts[rollout["system"]], "final": texts[rollout["final"]]}
        found[id_] = [r | {"summary": s} for r, s in zip(rollouts, summaries, strict=True)]
    return found


def source(trajectories: list[Trajectory], **changes) -> Source:
    return Source("bc", "evaluation", "bc", lambda: trajectories, **changes)


def test_all_that_was_said_and_counted_is_in_the_files(run, tmp_path, capsys):
    assert main(["view", str(run), "--out", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["index"] == str(tmp_path / "index.html") and Path(told["index"]).is_file()
    assert told["bytes"] == sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    kept = [*episodes("bc", 2), *trees()]
    assert told["trajectories"] == 6 * 12 + 2 + len(trees())
    found = {r["id"]: r for key in ("bc", "round:teacher") for t in shown(tmp_path, key).values() for r in t}
    assert found.keys() == {t.id for t in kept}
    for t in kept:
        one = found[t.id]
        assert [s["observation"] for s in one["steps"]] == [s.observation for s in t.steps]
        assert [s["thought"] for s in one["steps"]] == [s.thought for s in t.steps]
        assert [s["action"] for s in one["steps"]] == [s.action for s in t.steps]
        assert [(s["tokens"], s["input"], s["logprob"]) for s in one["steps"]] == [
            (s.num_tokens, s.input_tokens, s.logprob) for s in t.steps
        ]
        assert (one["final"], one["system"], one["stop"]) == (t.final_observation, t.system, t.stop_reason)
        assert one["summary"][:4] == [t.num_tokens, t.num_steps, one["reward"], int(t.success)]
        assert one["reward"] == pytest.approx(t.reward, abs=1e-6)
        assert tuple(one.get("nodes", ())) == t.nodes and tuple(one.get("visits", ())) == t.visits
        assert one.get("label") == (("D" if t.success else "U") if t.policy == "teacher" else None)


def test_sources_are_what_lies_there_in_the_order_of_the_configuration(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    write_shards(copy / "evaluation" / "aged" / "sampled", [episode("aged", 1, 2)], shards=1)
    write_shards(copy / "evaluation" / "superseded" / "bc-1" / "sampled", [episode("bc", 1, 2)], shards=1)
    write_shards(
        copy / "sweep" / "beta" / "trials" / "beta=1" / "evaluation" / "sampled", episodes("trial", 1)
    )
    keys = [s.key for s in find_sources(copy, make_config(tmp_path))]
    assert keys == [
        "bc", "bc/greedy", "bc/sampled-seed1", "depo", "depo/greedy", "depo/sampled-seed1", "aged",
        "suite:far/bc", "round:teacher", "sweep:beta/beta=1",
    ]  # fmt: skip


def test_success_is_what_the_evaluation_counts_and_an_error_never_is(run):
    """`judged` is what the tables are made by; the suite has a threshold of its own."""
    lost = episode("bc", 3, 1, stop_reason="error")
    cases = [episode("bc", 0, 2), episode("bc", 1, 8), episode("bc", 2, 8, success=False, reward=0.6), lost]
    for least in (None, 0.5):
        truth = judged([to_episode(t, "bc", "sampled", 0) for t in cases], least)
        written = write_view(run.parent / "judged", "x", [source(cases, success_reward=least)])
        found = shown(written.index.parent, "bc")
        assert [found[e.task_id][0]["success"] for e in truth] == [e.success for e in truth]
    assert [e.success for e in truth] == [True, False, True, False]
    suite = next(s for s in find_sources(run, make_config(run.parent)) if s.key == "suite:far/bc")
    assert suite.success_reward == 0.5


def test_marks_count_what_the_episodes_table_counts(run, tmp_path):
    control = TurnControl(show_turns=True)
    again = episode("bc", 1, 2)
    steps = (*episodes("depo", 0)[5].steps, *again.steps, *again.steps)
    told = [s.observation + control.ending(20 - i) for i, s in enumerate(steps)]
    assert told[0] != steps[0].observation
    seen = [s.__class__.from_row({**s.to_row(), "observation": o}) for s, o in zip(steps, told, strict=True)]
    controlled = episode("bc", 1, 2, steps=tuple(seen))
    for plain, trajectory in ((None, episode("bc", 1, 2, steps=steps)), (True, controlled)):
        said = plain_observations(trajectory, control, 20) if plain else None
        truth = to_episode(trajectory, "bc", "sampled", 0, observations=said)
        reader = (lambda t: plain_observations(t, control, 20)) if plain else None
        write_view(tmp_path, "x", [source([trajectory], plain=reader)])
        found = [s["marks"] for s in shown(tmp_path, "bc")["babyai/OpenRedDoor/1"][0]["steps"]]
        assert found == [MALFORMED, MALFORMED | REPEATED, 0, INVALID, REPEATED, INVALID | REPEATED]
        assert truth.repeated == sum(m & REPEATED > 0 for m in found) == 3
        assert (truth.invalid, truth.malformed) == (2, 2)


def test_chunks_stay_small_and_hold_tasks_whole(tmp_path):
    many = [
        episode("bc", seed, 3, index=index, system=f"{seed}/{index} " + "x" * 3000)
        for seed in range(150)
        for index in range(2)
    ]
    write_view(tmp_path, "x", [source(many)])
    found = shown(tmp_path, "bc")
    assert [[r["index"] for r in rollouts] for rollouts in found.values()] == [[0, 1]] * 150
    (entry,) = value_of(tmp_path / "catalogue.js")["sources"]
    chunks = value_of(tmp_path / "data" / f"{entry['index']}.js")["chunks"]
    sizes = [(tmp_path / "data" / f"{name}.js").stat().st_size for name in chunks]
    assert len(sizes) == 4 and max(sizes) < 1.5 * CHUNK_CHARACTERS
    assert sum(sizes) < entry["bytes"] < sum(sizes) + 40_000


def test_written_again_to_the_same_bytes_and_anew_without_what_is_gone(tmp_path):
    def files() -> dict[str, bytes]:
        return {str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}

    write_view(tmp_path, "x", [source(episodes("bc", 1))])
    before = files()
    write_view(tmp_path, "x", [source(episodes("bc", 1))])
    assert files() == before

    def breaks():
        yield episode("bc", 0, 1)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_view(tmp_path, "y", [Source("bc", "evaluation", "bc", breaks)])
    assert files().items() >= before.items()  # the old view is whole

    write_view(tmp_path, "x", [source(episodes("depo", 1))])
    assert before.keys() - files().keys() == {f for f in before if f.startswith("data/")}


def test_the_page_loads_nothing_from_elsewhere_and_never_reads_html():
    for asset in ASSETS.iterdir():
        text = asset.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\(", text)
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text
        )
        assert len(text.splitlines()) <= 400
    page = (ASSETS / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    assert named - {"catalogue.js"} == {a.name for a in ASSETS.iterdir()} - {"index.html"}


def test_a_name_prints_episodes_from_wherever_the_run_lies_now(run, tmp_path, capsys):
    moved = shutil.copytree(run, tmp_path / "elsewhere")
    shutil.rmtree(moved / "view", ignore_errors=True)
    assert main(["view", str(moved), "depo", "-n", "2"]) == 0
    assert capsys.readouterr().out.count("── babyai/") == 2
    assert main(["view", str(moved), "depo", "-n", "5", "--failures", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["task"]["seed"] for row in rows] == [3, 5]
    assert main(["view", str(moved)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(moved / "view" / "index.html")


def test_bad_input_is_one_line(run, tmp_path, capsys):
    def complaint(*arguments: str) -> str:
        assert main(["view", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("depo: ") and error.count("\n") == 1
        return error

    copy = shutil.copytree(run, tmp_path / "copy")
    assert "neither a round nor an evaluated method" in complaint(str(copy), "nobody")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in complaint(str(copy), "--out", str(tmp_path / "file" / "view"))
    broken = copy / "evaluation" / "bc" / "sampled" / "ffff.parquet"
    broken.write_bytes(b"PAR1")
    assert str(broken) in complaint(str(copy))
    for folder in ("evaluation", "suites", "trajectories"):
        shutil.rmtree(copy / folder)
    assert "no trajectories below" in complaint(str(copy))


@pytest.mark.parametrize("arguments", [["-n", "3"], ["--failures"], ["bc", "--out", "x"]])
def test_options_of_the_other_output_are_wrong_usage(run, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["view", str(run), *arguments])
    assert stop.value.code == 2


def test_a_task_in_two_shards_is_read_once(tmp_path):
    """A worker lost after it wrote: the rows that count are those where the task did not fail."""
    write_shards(tmp_path, [episode("bc", 1, 2, stop_reason="error", success=False)], shards=1)
    write_shards(tmp_path / "b", [episode("bc", 1, 2), episode("bc", 2, 2)], shards=1)
    (tmp_path / "b" / f"{0:016x}.parquet").rename(tmp_path / "b.parquet")
    assert [(t.task.seed, t.stop_reason) for t in read_by_task(tmp_path)] == [
        (1, "terminated"),
        (2, "terminated"),
    ]


def test_without_a_browser_and_the_right_to_install_one_line_says_how(tmp_path):
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    script = Path(__file__).parents[2] / "requirements" / "browser.sh"
    said = subprocess.run(
        ["/bin/sh", str(script)], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert said.stdout == "" and said.stderr.count("\n") == 1
    assert "apt-get install chromium chromium-driver" in said.stderr
