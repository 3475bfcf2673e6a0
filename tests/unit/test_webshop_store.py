"""The store: built once, shared, rebuilt when damaged, opened again by path."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from webshop_help import ITEMS, content, write

from depo.config.base import ConfigError
from depo.envs.webshop.cache import built_folder
from depo.envs.webshop.store import Shop
from depo.envs.webshop.synthetic import SyntheticSpec

SPEC = SyntheticSpec(30, 0)
OPEN = """
import sys
from depo.envs.webshop.store import Shop
from depo.envs.webshop.synthetic import SyntheticSpec
shop = Shop.open(SyntheticSpec(3000, 0), cache_dir=sys.argv[1])
print(len(shop), len(shop.goals), shop.search(shop.goals[0].instruction)[0])
"""
MEMORY = """
import json, sys
from depo.envs.webshop.store import Shop
from depo.envs.webshop.synthetic import SyntheticSpec
def private():
    rows = (line.split() for line in open("/proc/self/smaps_rollup"))
    sizes = {row[0]: int(row[1]) for row in rows if len(row) == 3}
    return sizes["Private_Clean:"] + sizes["Private_Dirty:"], sizes["Rss:"]
Shop.open(SyntheticSpec(5, 0), cache_dir=sys.argv[1]).search("lamp")
before = private()
shop = Shop.open(SyntheticSpec(12000, 0), cache_dir=sys.argv[1])
for at in range(200):
    goal = shop.goals[at]
    shop.product(shop.search(goal.instruction)[0])
print(json.dumps([now - then for now, then in zip(private(), before)]), flush=True)
sys.stdin.read()
"""


def facts(shop: Shop) -> list:
    return [[shop.product(asin), shop.price(asin)] for asin in shop.ids()] + list(shop.goals)


def started(code: str, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_processes_that_open_at_once_build_once(tmp_path):
    processes = [started(OPEN, tmp_path) for _ in range(3)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert len({output for output, _ in answers}) == 1
    assert answers[0][0].startswith("3000 ")
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert len(names) == 2
    assert not any("draft" in name for name in names)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps_rollup")
def test_a_second_process_adds_little_memory(tmp_path):
    Shop.open(SyntheticSpec(12000, 0), cache_dir=tmp_path)
    first = started(MEMORY, tmp_path)
    _, whole = json.loads(first.stdout.readline())
    second = started(MEMORY, tmp_path)
    added, _ = json.loads(second.stdout.readline())
    for process in (first, second):
        process.communicate("", timeout=30)
    assert added < 0.1 * whole


def damage_by_cutting(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def damage_by_changing(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [damage_by_cutting, damage_by_changing, Path.unlink])
@pytest.mark.parametrize("name", ["products.bin", "index_weights.npy", "goals.npy", "seal.json"])
def test_a_damaged_store_is_built_again(tmp_path, damage, name):
    before = facts(Shop.open(SPEC, cache_dir=tmp_path))
    for path in tmp_path.glob(f"*/{name}"):
        damage(path)
    shop = Shop.open(SPEC, cache_dir=tmp_path)
    assert facts(shop) == before
    assert shop.search(shop.goals[0].instruction)


def test_what_a_killed_builder_left_is_swept_up(tmp_path):
    Shop.open(SPEC, cache_dir=tmp_path)
    [folder] = [path.parent for path in tmp_path.glob("*/asins.npy")]
    folder.rename(folder.with_name(f"{folder.name}.123.draft"))
    Shop.open(SPEC, cache_dir=tmp_path)
    assert not list(tmp_path.glob("*.draft"))


def test_a_build_that_fails_leaves_nothing_and_the_next_one_succeeds(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyError("stopped")

    with pytest.raises(KeyError):
        built_folder(tmp_path, "key", fail)
    assert not list(tmp_path.glob("key*/"))
    assert (
        built_folder(tmp_path, "key", lambda folder: (folder / "x").write_text("y") and None)
        == tmp_path / "key"
    )


def test_an_opened_store_is_not_built_again(tmp_path):
    Shop.open(SPEC, cache_dir=tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()}
    Shop.open(SPEC, cache_dir=tmp_path)
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()} == before


def test_changed_files_give_a_new_store(tmp_path):
    folder = write(tmp_path / "data", content())
    shop = Shop.open(folder, cache_dir=tmp_path / "cache")
    files = content()
    files[ITEMS][1]["name"] = "Floor Lamp"
    write(folder, files)
    again = Shop.open(folder, cache_dir=tmp_path / "cache")
    assert (shop.product("B00000LAMP").title, again.product("B00000LAMP").title) == (
        "Desk Lamp",
        "Floor Lamp",
    )


def test_a_pickled_shop_is_opened_again_even_where_the_cache_is_gone(tmp_path):
    shop = Shop.open(SPEC, variant="webshop", seed=3, human_goals=True, cache_dir=tmp_path / "cache")
    data = pickle.dumps(shop)
    assert len(data) < 1000
    before = facts(shop)
    (tmp_path / "cache").rename(tmp_path / "moved")
    assert facts(pickle.loads(data)) == before
    assert len(pickle.dumps(shop.goals)) < 1000
    assert list(pickle.loads(pickle.dumps(shop.goals))) == list(shop.goals)


def test_lists_by_category_and_query_keep_the_catalogues_order(tmp_path):
    files = content()
    files[ITEMS].reverse()
    shop = Shop.open(write(tmp_path / "data", files), cache_dir=tmp_path / "cache")
    assert shop.by_category("garden") == ("B00000LAMP", "B00000CHAI")
    assert shop.by_query("chairs") == ("B00000CHAI",)
    assert shop.by_query("garden") == ()


@pytest.mark.parametrize("asin", ["", "B0", "ZZZZZZZZZZZZ", "é", "\ud800", "\0", "B00000CHAI\0"])
def test_an_unknown_id_is_no_product(tmp_path, asin):
    shop = Shop.open(write(tmp_path / "data", content()), cache_dir=tmp_path / "cache")
    assert shop.product(asin) is None
    with pytest.raises(KeyError):
        shop.price(asin)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"cache_dir .*: cannot be written .*XDG_CACHE_HOME"):
        Shop.open(SPEC, cache_dir=tmp_path / "cache")


def test_a_cache_below_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cache_dir .*: cannot be written .*XDG_CACHE_HOME"):
        Shop.open(SPEC, cache_dir=tmp_path / "file" / "cache")


def test_the_default_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Shop.open(SPEC)
    assert list((tmp_path / "depo" / "webshop").glob("*/seal.json"))


def test_an_unknown_variant_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="variant: 'amazon' is none of default, webshop, agentgym"):
        Shop.open(SPEC, variant="amazon", cache_dir=tmp_path)
