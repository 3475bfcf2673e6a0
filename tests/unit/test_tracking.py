"""Tracking without a store: names and numbers, the one line of a failure, what counts as mirrored."""

from __future__ import annotations

import math
import sqlite3

import pytest
from pydantic import ValidationError

from depo.config.schema import TrackingConfig
from depo.stages.mirror import headline
from depo.stages.mirror_sweep import thinned
from depo.stages.mirrored import MIRRORED, Mirrored
from depo.tracking.guard import Guard
from depo.tracking.store import StoreError, destination, embedded, explain
from depo.tracking.values import batches, clean, flatten, numbers, points


def fail(error):
    raise error


def test_nested_parameters_get_dotted_names_and_long_values_are_cut():
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": {}}) == {"a.b": "1", "a.c.d": "None", "e": "{}"}
    assert len(flatten({"levels": ["x" * 900]})["levels"]) == 500


def test_metrics_are_the_finite_numbers_under_names_that_mlflow_takes():
    values = {"loss": 1, "note": "x", "bad": math.nan, "far": -math.inf, "ok": True, "P(a>b)": {"mean": 0.5}}
    assert numbers(values) == {"loss": 1.0, "ok": 1.0, "P_a_b_.mean": 0.5}
    assert [clean(name) for name in ("train/loss", "a//b", "/x", "../y", "")] == [
        "train/loss", "a/b", "x", "y", "_",
    ]  # fmt: skip


def test_rows_become_points_and_those_without_a_step_are_left_out():
    rows = [{"step": 2, "loss": 0.5, "log_ratio": {"D": 1}}, {"loss": 9.0}]
    assert points(rows) == {("loss", 2): 0.5, ("log_ratio.D", 2): 1.0}


@pytest.mark.parametrize(("params", "metrics"), [(0, 0), (3, 5), (100, 900), (250, 2500), (0, 1001)])
def test_batches_hold_all_of_it_and_no_more_than_a_call_takes(params, metrics):
    portions = list(batches(list(range(params)), list(range(metrics))))
    assert [p for some, _ in portions for p in some] == list(range(params))
    assert [m for _, some in portions for m in some] == list(range(metrics))
    assert all(len(p) <= 100 and 0 < len(p) + len(m) <= 1000 for p, m in portions)


def test_a_guard_tells_once_and_runs_nothing_after_a_store_is_gone(capsys):
    ran = []
    guard = Guard(explain)
    assert guard.attempt(lambda: 7) == 7 and not guard.broken
    guard.attempt(lambda: fail(RuntimeError("gone")))
    guard.attempt(lambda: ran.append("written"))
    guard.close(lambda: ran.append("closed"))
    assert guard.broken and ran == []
    line = "tracking: stopped, the run goes on (RuntimeError: gone); give the same command again later"
    assert capsys.readouterr().err == f"{line} to mirror what is missing\n"


def test_a_guard_still_ends_runs_where_only_a_file_was_missing(capsys):
    ran = []
    guard = Guard(explain)
    guard.attempt(lambda: fail(FileNotFoundError("index.html")))
    guard.attempt(lambda: ran.append("written"))
    guard.close(lambda: ran.append("closed"))
    guard.close(lambda: fail(RuntimeError("gone")))
    guard.close(lambda: ran.append("waited for"))
    assert ran == ["closed"]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_store_that_cannot_be_written_is_told_with_its_mend(tmp_path):
    file = tmp_path / "mlflow.db"
    sqlite3.connect(file).execute("CREATE TABLE t (a)").connection.close()
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(f"file:{file}?mode=ro", uri=True).execute("INSERT INTO t VALUES (1)")
    assert explain(caught.value, file) == f"{file} cannot be written; set tracking.uri to a store that can"
    assert explain(PermissionError(13, "Permission denied"), file).startswith(f"{file} cannot be written")
    assert explain(StoreError("as it stands"), file) == "as it stands"


def test_what_one_store_has_says_nothing_of_another_and_a_cut_line_counts_as_missing(tmp_path):
    mine = Mirrored(tmp_path, "mine")
    for key in ("a", "b", "a"):
        mine.add(key)
    path = tmp_path / MIRRORED
    path.write_text(path.read_text()[:-4])
    again = Mirrored(tmp_path, "mine")
    assert "a" in again and "b" not in again and "a" not in Mirrored(tmp_path, "other")
    again.add("c")
    assert "c" in Mirrored(tmp_path, "mine")
    again.forget()
    assert "a" not in again


def test_a_store_is_named_without_its_secrets_and_only_files_are_embedded(tmp_path):
    store = tmp_path / "mlflow.db"
    server = TrackingConfig(uri="http://user:secret@localhost:5000")
    assert "secret" not in destination(server, store, "x")
    assert destination(server, store, "x") != destination(TrackingConfig(), store, "x")
    assert destination(TrackingConfig(experiment="y"), store, "x") == destination(
        TrackingConfig(), store, "y"
    )
    assert embedded(TrackingConfig(), store) == store
    assert embedded(TrackingConfig(uri=f"sqlite:///{tmp_path}/a.db?timeout=5"), store) == tmp_path / "a.db"
    assert embedded(server, store) is None


def test_an_address_that_is_none_is_refused_with_the_mend():
    with pytest.raises(ValidationError, match=r"'localhost:5000' is no address; write http://HOST:PORT"):
        TrackingConfig(uri="localhost:5000")


def test_a_long_curve_is_thinned_to_rows_at_equal_distances():
    assert thinned([1, 2, 3]) == [1, 2, 3]
    rows = thinned(list(range(1000)), 4)
    assert rows == [0, 333, 666, 999]


def test_the_headline_is_every_mean_of_every_method():
    results = {
        "methods": {"bc": {"decoding": "greedy", "success": {"mean": 0.5}, "tokens_success": {"mean": None}}}
    }
    assert headline(results) == {"bc/success": 0.5}
