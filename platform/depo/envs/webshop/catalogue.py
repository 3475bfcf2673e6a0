"""WebShop's data files as products and instructions, checked row by row and normalised as its loader does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

from depo.config.base import ConfigError
from depo.envs.webshop.json_rows import Row
from depo.envs.webshop.product import Product
from depo.envs.webshop.sources import DataFile

NO_PRICE = 100.0
LONGEST_ASIN = 10
NO_ATTRIBUTES = ("DUMMY_ATTR",)
T = TypeVar("T")
_TYPES: dict[Any, str] = {str: "a string", list: "a list", dict: "an object"}


@dataclass(frozen=True, slots=True)
class HumanInstruction:
    """An instruction written by a person for one product."""

    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Annotation:
    """What `items_ins_v2` says of a product: its attributes and, for some, an instruction."""

    attributes: tuple[str, ...]
    instruction: str | None
    instruction_attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A product with everything goals are made from, in the catalogue's order."""

    product: Product
    instruction: str | None
    instruction_attributes: tuple[str, ...]
    human: tuple[HumanInstruction, ...]


@dataclass
class Repeats:
    """Rows passed over because their asin came before; `conflict` is the first that is another product."""

    count: int = 0
    first: str = ""
    conflict: str = ""


def read_annotations(file: DataFile) -> dict[str, Annotation]:
    """asin to annotation. Raises `ConfigError` naming file, row and field."""
    return dict(_by_asin(file, read_annotation))


def read_human(file: DataFile) -> dict[str, tuple[HumanInstruction, ...]]:
    """asin to the instructions people wrote. Raises `ConfigError` naming file, row and field."""
    return dict(_by_asin(file, read_human_instructions))


def _by_asin(file: DataFile, read: Callable[[Any, str], T]) -> Iterator[tuple[str, T]]:
    first: dict[str, int] = {}
    for row, asin, value in file.rows("object"):
        where = _where(file.label, row, asin)
        if asin in first:
            raise ConfigError(f"{where}: asin: was given in row {first[asin]} already; keep one of the two")
        first[asin] = row
        yield asin, read(value, where)


def read_annotation(value: Any, where: str) -> Annotation:
    """A row of `items_ins_v2`; `where` begins the message of a `ConfigError`."""
    entry = _typed(value, dict, where, "value")
    attributes = _strings(entry, "attributes", where) if "attributes" in entry else NO_ATTRIBUTES
    if entry.get("instruction") is None:
        return Annotation(attributes, None, ())
    wanted = _strings(entry, "instruction_attributes", where)
    return Annotation(attributes, _text(entry, "instruction", where), wanted)


def read_human_instructions(value: Any, where: str) -> tuple[HumanInstruction, ...]:
    """A row of `items_human_ins`; `where` begins the message of a `ConfigError`."""
    return tuple(
        HumanInstruction(
            _text(entry, "instruction", where),
            _strings(entry, "instruction_attributes", where),
            _strings(entry, "instruction_options", where),
        )
        for item in _typed(value, list, where, "value")
        for entry in [_typed(item, dict, where, "entry")]
    )


def read_entries(
    rows: Iterable[Row],
    label: str,
    annotations: dict[str, Annotation],
    human: dict[str, tuple[HumanInstruction, ...]],
    repeats: Repeats,
) -> Iterator[Entry]:
    """The catalogue's products in order; rows with a repeated, overlong or "nan" asin are passed over.

    Raises `ConfigError` naming file, row and field, also where no product is left.
    """
    seen: dict[str, tuple[int, int]] = {}
    for row, _, value in rows:
        where = _where(label, row)
        raw = _typed(value, dict, where, "value")
        asin = _text(raw, "asin", where)
        if not asin or not asin.isascii():
            raise ConfigError(f"{where}: asin: {asin!r} is no product id; give up to 10 letters and digits")
        if asin == "nan" or len(asin) > LONGEST_ASIN:
            continue
        title = hash(raw.get("name")) if isinstance(raw.get("name"), str) else 0
        if asin in seen:
            _note_repeat(repeats, where, asin, seen[asin], title)
            continue
        seen[asin] = (row, title)
        note = annotations.get(asin, Annotation(NO_ATTRIBUTES, None, ()))
        product = read_product(raw, asin, note.attributes, where)
        yield Entry(product, note.instruction, note.instruction_attributes, human.get(asin, ()))
    if not seen:
        raise ConfigError(f"{label}: row 1: asin: the file holds no product; give one at least")


def _note_repeat(repeats: Repeats, where: str, asin: str, first: tuple[int, int], title: int) -> None:
    message = f"{where}: asin: {asin} was given in row {first[0]} already"
    repeats.count += 1
    repeats.first = repeats.first or message
    if title != first[1]:
        repeats.conflict = repeats.conflict or f"{message}, with another name"


def _where(label: str, row: int, asin: str = "") -> str:
    return f"{label}: row {row} ({asin})" if asin else f"{label}: row {row}"


def read_product(raw: dict[str, Any], asin: str, attributes: tuple[str, ...], where: str) -> Product:
    """A row of `items_shuffle`; `where` begins the message of a `ConfigError`."""
    price_text, low, high = _prices(raw.get("pricing"), where)
    _typed(_field(raw, "images", where), list, where, "images")
    return Product(
        asin=asin.upper(),
        title=_text(raw, "name", where),
        query=_text(raw, "query", where).lower().strip(),
        category=_text(raw, "category", where),
        product_category=_text(raw, "product_category", where),
        description=_text(raw, "full_description", where),
        bullets=_bullets(raw, where),
        price_text=price_text,
        price_low=low,
        price_high=high,
        attributes=attributes,
        options=_options(_field(raw, "customization_options", where), where),
    )


def _bullets(raw: dict[str, Any], where: str) -> tuple[str, ...]:
    value = _field(raw, "small_description", where)
    return (value,) if isinstance(value, str) else _strings(raw, "small_description", where)


def _prices(value: Any, where: str) -> tuple[str, float, float]:
    """The text shown and the two bounds. "$1,093.10" is one price, "$5$7.50" a range; more are ignored."""
    if not value:
        return f"${NO_PRICE}", NO_PRICE, NO_PRICE
    text = _typed(value, str, where, "pricing")
    try:
        numbers = [float(Decimal(re.sub(r"[^\d.]", "", part))) for part in text.split("$")[1:]]
    except InvalidOperation:
        numbers = []
    if not numbers:
        raise ConfigError(
            f"{where}: pricing: {text!r} is no price; write it as $12.50, or $5$7.50 for a range"
        )
    if len(numbers) == 1:
        return f"${numbers[0]}", numbers[0], numbers[0]
    return f"${numbers[0]} to ${numbers[1]}", numbers[0], numbers[1]


def _options(value: Any, where: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    options: dict[str, tuple[str, ...]] = {}
    for name, choices in _typed(value or {}, dict, where, "customization_options").items():
        field = f"customization_options.{name}"
        if choices is not None:
            options[name.lower()] = tuple(
                _text(_typed(choice, dict, where, field), "value", f"{where}: {field}")
                .strip()
                .replace("/", " | ")
                .lower()
                for choice in _typed(choices, list, where, field)
            )
    return tuple(options.items())


def _field(raw: dict[str, Any], field: str, where: str) -> Any:
    if field not in raw:
        raise ConfigError(f"{where}: {field}: missing; add it")
    return raw[field]


def _typed(value: Any, kind: type, where: str, field: str) -> Any:
    if not isinstance(value, kind):
        raise ConfigError(f"{where}: {field}: must be {_TYPES[kind]}, not {_shown(value)}")
    return value


def _text(raw: dict[str, Any], field: str, where: str) -> str:
    text: str = _typed(_field(raw, field, where), str, where, field)
    return text


def _strings(raw: dict[str, Any], field: str, where: str) -> tuple[str, ...]:
    value = _typed(_field(raw, field, where), list, where, field)
    for item in value:
        if not isinstance(item, str):
            raise ConfigError(f"{where}: {field}: must hold strings, not {_shown(item)}")
    return tuple(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def search_text(product: Product) -> str:
    """What the search index reads of a product: title, description, first bullet and options."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options)
    first = product.bullets[0] if product.bullets else ""
    return " ".join([product.title, product.description, first, options]).lower()
