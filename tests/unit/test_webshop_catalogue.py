"""WebShop's data files: read unchanged, refused with file, row and field where they are malformed."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webshop_help import HUMAN, ITEMS, NOTES, content, write

from depo.config.base import ConfigError
from depo.envs.webshop import synthetic
from depo.envs.webshop.catalogue import search_text
from depo.envs.webshop.json_rows import read_rows
from depo.envs.webshop.store import Shop
from depo.envs.webshop.synthetic import SyntheticSpec, write_catalogue

CHAIR, LAMP = "B00000CHAI", "B00000LAMP"


def opened(tmp_path, files=None, **options) -> Shop:
    return Shop.open(write(tmp_path / "data", files or content()), cache_dir=tmp_path / "cache", **options)


def changed(file, row, **fields):
    files = content()
    files[file][row] |= fields
    return files


def without(field):
    files = content()
    del files[ITEMS][1][field]
    return files


def test_a_product_is_normalised_as_webshop_does(tmp_path):
    chair = opened(tmp_path).product(CHAIR)
    assert (chair.query, chair.price_text, chair.price_low) == ("chairs", "$1093.1", 1093.1)
    assert chair.options == (("color", ("red | blue", "green")),)
    assert chair.attributes == ("solid wood",)
    assert search_text(chair) == "oak chair a chair made of oak. sturdy color: red | blue, green"


def test_prices_may_be_missing_single_or_a_range(tmp_path):
    files = content()
    files[ITEMS][0]["pricing"] = ""
    shop = opened(tmp_path, files)
    assert (shop.product(CHAIR).price_text, shop.price(CHAIR)) == ("$100.0", 100.0)
    assert shop.product(LAMP).price_text == "$20.0 to $30.0"
    assert 20 <= shop.price(LAMP) <= 30


@pytest.mark.parametrize(
    "field",
    ["asin", "name", "query", "category", "product_category", "full_description", "small_description",
     "customization_options", "images"],
)  # fmt: skip
def test_a_missing_field_is_named_with_file_and_row(tmp_path, field):
    with pytest.raises(ConfigError, match=rf"{ITEMS}: row 2: {field}: missing; add it"):
        opened(tmp_path, without(field))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (changed(ITEMS, 0, name=7), rf"{ITEMS}: row 1: name: must be a string, not 7"),
        (changed(ITEMS, 1, small_description=[1]), rf"{ITEMS}: row 2: small_description: must hold strings"),
        (changed(ITEMS, 1, pricing="cheap"), rf"{ITEMS}: row 2: pricing: 'cheap' is no price"),
        (changed(ITEMS, 1, pricing="$1.2.3"), rf"{ITEMS}: row 2: pricing: '\$1.2.3' is no price"),
        (changed(ITEMS, 1, customization_options={"Color": "red"}), "customization_options.Color: must"),
        (changed(ITEMS, 1, customization_options={"Color": [{}]}), "_options.Color: value: missing"),
        (changed(ITEMS, 1, asin=""), rf"{ITEMS}: row 2: asin"),
        (content() | {ITEMS: [1]}, rf"{ITEMS}: row 1: value: must be an object, not 1"),
        (content() | {ITEMS: []}, rf"{ITEMS}: row 1: asin: the file holds no product"),
        (content() | {ITEMS: {}}, rf"{ITEMS}: row 1: starts with '{{'; it must hold a JSON array"),
        (content() | {ITEMS: ""}, rf"{ITEMS}: is empty"),
        (content() | {NOTES: "[]"}, rf"{NOTES}: row 1: starts with '\['; it must hold a JSON object"),
        (content() | {NOTES: '{"A": {}, "A": {}}'}, rf"{NOTES}: row 2 \(A\): asin: was given in row 1"),
        (changed(NOTES, CHAIR, attributes="x"), rf"{NOTES}: row 1 \({CHAIR}\): attributes: must be a list"),
        (changed(NOTES, LAMP, instruction="x"), rf"{NOTES}: row 2 .*: instruction_attributes: missing"),
        (content() | {HUMAN: {CHAIR: [{}]}}, rf"{HUMAN}: row 1 \({CHAIR}\): instruction: missing"),
        (content() | {HUMAN: '{"A": [] "B"}'}, rf"{HUMAN}: row 1: expected ',' or '}}', found '\"'"),
    ],
)  # fmt: skip
def test_malformed_data_is_named_with_file_row_and_field(tmp_path, files, message):
    with pytest.raises(ConfigError, match=message) as error:
        opened(tmp_path, files)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", [ITEMS, NOTES, HUMAN])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, file):
    text = json.dumps(content()[file])
    for end in range(1, len(text), 7):
        with pytest.raises(ConfigError, match=rf"{file}: row \d+: .*truncated"):
            opened(tmp_path, content() | {file: text[:end]})


def test_broken_json_tells_row_and_character(tmp_path):
    text = json.dumps(content()[ITEMS]).replace('"Desk Lamp"', "Desk Lamp")
    with pytest.raises(ConfigError, match=rf"row 2: expecting value \(character {text.index('Desk')}\)"):
        opened(tmp_path, content() | {ITEMS: text})


def test_bytes_that_are_no_text_are_refused(tmp_path):
    folder = write(tmp_path / "data", content())
    (folder / ITEMS).write_bytes(b'[{"asin": "\xff"}]')
    with pytest.raises(ConfigError, match=rf"{ITEMS}: row 1: not UTF-8"):
        Shop.open(folder, cache_dir=tmp_path / "cache")


def test_the_same_product_twice_is_kept_once(tmp_path, capsys):
    files = content()
    files[ITEMS].append(files[ITEMS][0] | {"query": "furniture"})
    assert len(opened(tmp_path, files)) == 2
    assert f"row 3: asin: {CHAIR} was given in row 1 already" in capsys.readouterr().err


def test_two_products_under_one_id_are_refused_but_in_compat(tmp_path):
    files = changed(ITEMS, 1, asin=CHAIR)
    with pytest.raises(ConfigError, match=rf"{ITEMS}: row 2: asin: {CHAIR} was given in row 1 already, with"):
        opened(tmp_path, files)
    assert opened(tmp_path, files, variant="webshop").product(CHAIR).title == "Oak Chair"


def test_ids_that_webshop_skips_are_skipped(tmp_path):
    files = content()
    files[ITEMS] += [files[ITEMS][0] | {"asin": asin} for asin in ("nan", "B0123456789")]
    assert opened(tmp_path, files).ids() == (CHAIR, LAMP)


def test_products_without_annotation_have_no_goal(tmp_path):
    shop = opened(tmp_path, content() | {NOTES: {}})
    assert len(shop.goals) == 0
    assert shop.product(LAMP).attributes == ("DUMMY_ATTR",)


def test_an_archive_and_a_folder_give_the_same_shop(tmp_path):
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as archive:
        for name, value in content().items():
            member = tarfile.TarInfo(f"deep/{name}")
            data = json.dumps(value).encode()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    packed = Shop.open(tmp_path / "data.tar.gz", cache_dir=tmp_path / "cache")
    shop = opened(tmp_path)
    assert [packed.product(asin) for asin in packed.ids()] == [shop.product(asin) for asin in shop.ids()]
    (tmp_path / "data.tar.gz").write_bytes((tmp_path / "data.tar.gz").read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"data\.tar\.gz: cannot be read"):
        Shop.open(tmp_path / "data.tar.gz", cache_dir=tmp_path / "cache")


def test_files_are_found_by_name_and_ending(tmp_path):
    files = content()
    small = {ITEMS.replace(".", "_1000."): files[ITEMS][:1], NOTES.replace(".", "_1000."): files[NOTES]}
    folder = write(tmp_path / "data", files | small)
    with pytest.raises(ConfigError, match=r"holds items_shuffle.json and items_shuffle_1000.json; give"):
        Shop.open(folder, cache_dir=tmp_path / "cache")
    assert len(Shop.open(folder / "items_shuffle_1000.json", cache_dir=tmp_path / "cache")) == 1
    (folder / NOTES).unlink()
    with pytest.raises(ConfigError, match="no such file"):
        Shop.open(tmp_path / "elsewhere", cache_dir=tmp_path / "cache")
    with pytest.raises(ConfigError, match=r"holds no items_shuffle\*\.json"):
        Shop.open(tmp_path, cache_dir=tmp_path / "cache")


def test_human_goals_need_their_file(tmp_path):
    files = content()
    del files[HUMAN]
    with pytest.raises(ConfigError, match="holds no items_human_ins"):
        opened(tmp_path, files, human_goals=True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.recursive(st.text() | st.integers() | st.none(), st.lists, max_leaves=5)),
    st.sampled_from([None, 2]),
)
def test_rows_of_any_array_are_read_as_json_reads_them(value, indent):
    text = json.dumps([[item] for item in value], indent=indent).encode()
    rows = list(read_rows(lambda: io.BytesIO(text), "x.json", "array"))
    assert [found for _, _, found in rows] == [[item] for item in value]
    assert [row for row, _, _ in rows] == list(range(1, len(value) + 1))


def test_rows_longer_than_what_is_read_at_once_are_whole():
    value = [["é" * 3_000_000], [1], ["b" * 1_500_000]]
    text = json.dumps(value, ensure_ascii=False).encode()
    assert [found for *_, found in read_rows(lambda: io.BytesIO(text), "x.json", "array")] == value


def test_a_synthetic_catalogue_written_to_files_is_the_same_shop(tmp_path):
    spec = SyntheticSpec(40, seed=3)
    write_catalogue(spec, tmp_path / "data")
    for human in (False, True):
        made = Shop.open(spec, human_goals=human, cache_dir=tmp_path / "cache")
        read = Shop.open(tmp_path / "data", human_goals=human, cache_dir=tmp_path / "cache")
        assert list(map(made.product, made.ids())) == list(map(read.product, read.ids()))
        assert list(made.goals) == list(read.goals)


def test_a_smaller_synthetic_catalogue_begins_a_larger_one():
    small, large = (list(synthetic.raw_products(SyntheticSpec(size, 5))) for size in (20, 60))
    assert large[:20] == small
    assert len({raw.item["asin"] for raw in large}) == 60
    assert small != list(synthetic.raw_products(SyntheticSpec(20, 6)))


@pytest.mark.parametrize(("size", "seed"), [(0, 0), (True, 0), ("9", 0), (10, 0.5)])
def test_a_bad_size_or_seed_is_refused(size, seed):
    with pytest.raises(ConfigError, match=r"^(size|seed): give a"):
        SyntheticSpec(size, seed)
