"""The cache of reference log-probs: what shares a key, and what does not."""

import numpy as np
import pytest

from depo.config.base import ConfigError
from depo.data.reference_cache import ReferenceCache, open_cache, sequence_key
from depo.identity import weights_hash


def test_what_was_written_is_read_whatever_the_shard(tmp_path):
    cache = ReferenceCache(tmp_path / "cache")
    assert cache.read(["a"]) == {}
    cache.write({"a": np.array([-1.5, -2.5], dtype=np.float32), "b": np.array([], dtype=np.float32)})
    cache.write({"c": np.array([-3.0], dtype=np.float32)})
    assert {key: values.tolist() for key, values in cache.read(["c", "b", "a", "x"]).items()} == {
        "a": [-1.5, -2.5],
        "b": [],
        "c": [-3.0],
    }
    assert {key: values.tolist() for key, values in cache.read(["b"]).items()} == {"b": []}


def test_a_damaged_shard_is_named(tmp_path):
    cache = ReferenceCache(tmp_path)
    cache.write({"a": np.array([-1.0], dtype=np.float32)})
    (shard,) = tmp_path.glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(ConfigError, match=rf"{shard.name}: damaged; delete it"):
        cache.read(["a"])


def test_a_key_tells_ids_and_own_tokens_and_nothing_else():
    ids, own = np.array([5, 6, 7]), np.array([0, 1, 2])
    key = sequence_key(ids, own)
    assert key == sequence_key(ids.astype(np.int32), np.array([0, 2, 1], dtype=np.int8))
    assert key != sequence_key(ids, np.array([0, 0, 1]))
    assert key != sequence_key(np.array([5, 6, 8]), own)
    assert key != sequence_key(ids[:2], own[:2])


def test_a_policys_cache_is_named_by_its_weights_tokenizer_and_dtype(tmp_path):
    def model(name: str, weights: bytes, tokenizer: str = "{}") -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "tokenizer.json").write_text(tokenizer)
        return str(folder)

    one, same, other = model("one", b"1"), model("same", b"1", '{"saved": "anew"}'), model("other", b"2")
    assert weights_hash(one) == weights_hash(same) != weights_hash(other)
    caches = {
        open_cache(tmp_path, folder, tokenizer, dtype).folder
        for folder, tokenizer, dtype in [
            (one, "t", "float32"), (same, "t", "float32"), (other, "t", "float32"), (one, "u", "float32"),
            (one, "t", "bfloat16"),
        ]
    }  # fmt: skip
    assert len(caches) == 4
