"""A catalogue of a few products in the public files' schema, to be changed by a test."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

_GOLDEN = os.environ.get("DEPO_GOLDEN_DIR")
needs_golden = pytest.mark.skipif(
    not _GOLDEN, reason="DEPO_GOLDEN_DIR is not set: the recorded cases are elsewhere"
)
ITEMS, NOTES, HUMAN = "items_shuffle.json", "items_ins_v2.json", "items_human_ins.json"
_CHAIR = {
    "asin": "B00000CHAIR"[:10],
    "name": "Oak Chair",
    "query": " Chairs ",
    "category": "garden",
    "product_category": "Home › Furniture › Chairs",
    "full_description": "A chair made of oak.",
    "small_description": ["Sturdy", "Handmade"],
    "pricing": "$1,093.10",
    "customization_options": {
        "Color": [{"value": " Red/Blue "}, {"value": "Green", "image": None}],
        "Leg": None,
    },
    "images": ["https://shop.invalid/chair.jpg"],
}
_LAMP = _CHAIR | {
    "asin": "B00000LAMP",
    "name": "Desk Lamp",
    "query": "lamps",
    "small_description": "Bright",
    "pricing": "$20.00$30.00",
    "customization_options": None,
}


def golden(name: str) -> Path:
    """A recorded file; only for tests that need the recorded cases."""
    assert _GOLDEN is not None
    return Path(_GOLDEN) / name


def content() -> dict[str, Any]:
    """File name to JSON value of a catalogue with two products, a goal for each, and one by a person."""
    chair, lamp = _CHAIR["asin"], _LAMP["asin"]
    return {
        ITEMS: copy.deepcopy([_CHAIR, _LAMP]),
        NOTES: {
            chair: {
                "attributes": ["solid wood"],
                "instruction": "Find me chairs, solid wood",
                "instruction_attributes": ["solid wood"],
            },
            lamp: {"attributes": []},
        },
        HUMAN: {
            lamp: [
                {
                    "asin": lamp,
                    "instruction": "i need a bright lamp.",
                    "instruction_attributes": ["bright"],
                    "instruction_options": [],
                }
            ]
        },
    }


def write(folder: Path, files: dict[str, Any]) -> Path:
    """The folder, with the files written into it; text goes in as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return folder
