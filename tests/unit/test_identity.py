"""Models and files are known by their content: where they lie and when they were written says nothing."""

import json
import os
import shutil
from pathlib import Path

import pytest

from depo import identity
from depo.config.base import ConfigError
from depo.config.load import load_config
from depo.config.schema import StudentConfig
from depo.identity import (
    file_hash,
    files_hash,
    hub_commit,
    located,
    model_hash,
    pinned,
    require_commit,
    weights_hash,
)
from depo.pipeline import build, check
from depo.stages.base import Outcome, begin, finish, state

DEMO = Path(__file__).parents[2] / "experiments/configs/babyai-tiny.yaml"
BIG = b"\0" * 2**20
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(identity, "_SETTLED", 0)
    hub_commit.cache_clear()
    located.cache_clear()
    return tmp_path / "caches/depo/hashes"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(BIG + b"one")
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"):
        (folder / name).write_text("{}")
    return folder


def rewrite(file, content):
    """Other content of the same size in the same inode, with the very time stamps of the old."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_second_fine_tune_at_the_same_path_is_another_model(model):
    first = model_hash(str(model)), weights_hash(str(model))
    rewrite(model / "model.safetensors", b"\0" * 2**20 + b"two")
    second = model_hash(str(model)), weights_hash(str(model))
    assert first[0] != second[0] and first[1] != second[1]
    rewrite(model / "model.safetensors", b"\0" * 2**20 + b"one")
    assert (model_hash(str(model)), weights_hash(str(model))) == first


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"]
)
def test_configuration_tokenizer_and_template_are_part_of_it(model, name):
    first, weights = model_hash(str(model)), weights_hash(str(model))
    rewrite(model / name, b"[]")
    assert model_hash(str(model)) != first
    assert (weights_hash(str(model)) != weights) is (name == "config.json")


def test_a_touch_a_copy_and_what_a_training_leaves_beside_it_change_nothing(model, tmp_path):
    first = model_hash(str(model)), weights_hash(str(model))
    os.utime(model / "model.safetensors")
    for name in ("README.md", "training_args.bin", "optimizer.bin", "trainer_state.json", "run.log"):
        (model / name).write_text("later")
    assert (model_hash(str(model)), weights_hash(str(model))) == first
    shutil.copytree(model, tmp_path / "copy")
    assert (model_hash(str(tmp_path / "copy")), weights_hash(str(tmp_path / "copy"))) == first


@pytest.mark.parametrize("identity", [model_hash, weights_hash])
def test_an_adapter_is_another_with_another_base(model, tmp_path, identity):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"lora")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    first = identity(str(adapter))
    rewrite(model / "model.safetensors", b"\0" * 2**20 + b"two")
    second = identity(str(adapter))
    rewrite(adapter / "adapter_model.safetensors", b"else")
    assert len({first, second, identity(str(adapter))}) == 3
    for broken in ("{", "[]", "5"):
        rewrite(adapter / "adapter_config.json", broken.encode())
        assert identity(str(adapter))


def test_a_large_file_is_read_once_and_a_fresh_change_is_never_trusted(model, caches, monkeypatch):
    file = model / "model.safetensors"
    digest = file_hash(file)
    (note,) = caches.iterdir()
    kept = json.loads(note.read_text())
    note.write_text(json.dumps([*kept[:-1], "kept"]))
    assert file_hash(file) == "kept"
    os.utime(file)
    assert file_hash(file) == digest
    note.write_text("cut o")
    assert file_hash(file) == digest
    note.unlink()
    monkeypatch.setattr(identity, "_SETTLED", 10**18)
    assert file_hash(file) == digest and list(caches.iterdir()) == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(file / "no-folder"))
    assert file_hash(file) == digest


def test_files_are_named_below_their_folder_and_none_is_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.txt").write_text("b")
    found = files_hash(tmp_path)
    assert list(found) == ["a/b.txt"] and files_hash(tmp_path / "a/b.txt") == {"b.txt": found["a/b.txt"]}
    assert files_hash(tmp_path / "nothing") == {}


def config(tmp_path, **student):
    given = [f"student.{key}={value}" for key, value in student.items()]
    return load_config(DEMO, [*given, f"runtime.runs_dir={tmp_path / 'runs'}"])


def test_a_finished_stage_is_not_done_for_another_model_at_its_path(model, tmp_path):
    def spec():
        return build(config(tmp_path, model=model)).nodes["student"].spec

    begin(spec())
    finish(spec(), Outcome(1), 0.0)
    os.utime(model / "model.safetensors")
    assert state(spec()) == "done"
    rewrite(model / "model.safetensors", b"\0" * 2**20 + b"two")
    assert state(spec()) == "starts anew: model changed"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A local cache of the hub that holds one commit of one model."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    folder = cache / "models--org--tiny"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_a_hubs_model_is_pinned_to_the_commit_of_its_revision_without_a_network(hub, tmp_path):
    assert (
        pinned("org/tiny", None)
        == pinned("org/tiny", "main")
        == pinned("org/tiny", COMMIT)
        == f"org/tiny@{COMMIT}"
    )
    assert model_hash(f"org/tiny@{COMMIT}") == f"org/tiny@{COMMIT}"
    assert located(f"org/tiny@{COMMIT}") == str(hub) and located(str(tmp_path)) == str(tmp_path)
    experiment = build(config(tmp_path, model="org/tiny"))
    assert experiment.model_dir("student") == f"org/tiny@{COMMIT}"
    assert experiment.nodes["student"].spec.config == {"model": f"org/tiny@{COMMIT}"}
    (hub / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "missing.safetensors"}})
    )
    located.cache_clear()
    with pytest.raises(ConfigError, match="neither whole in the local cache"):
        located(f"org/tiny@{COMMIT}")


def test_a_revision_that_cannot_be_told_is_one_line(hub, tmp_path):
    assert pinned("org/tiny", "v2") == "org/tiny"
    with pytest.raises(
        ConfigError, match=r"^student\.revision: v2 of 'org/tiny' is in no local cache"
    ) as error:
        require_commit("org/tiny", "v2")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"^student\.revision: v2"):
        check(config(tmp_path, model="org/tiny", revision="v2"), {"student"})
    for given in ("tiny", str(tmp_path)):
        with pytest.raises(ValueError, match="revision is not read"):
            StudentConfig(model=given, revision="main")
