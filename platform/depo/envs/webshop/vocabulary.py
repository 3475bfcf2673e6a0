"""The words that synthetic products are made of: shelves with kinds of product, qualities and options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shelf:
    """Products that share a category, qualities ("that is ..."), options and a range of prices in dollars."""

    category: str
    path: tuple[str, str]
    kinds: tuple[str, ...]
    qualities: tuple[str, ...]
    options: tuple[str, ...]
    prices: tuple[float, float]


def _list(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(","))


OPTIONS: dict[str, tuple[str, ...]] = {
    "color": _list(
        """ivory, charcoal, navy, olive, burgundy, teal, mustard, lavender, coral, mint green, sky blue,
        dusty pink, forest green, matte black, pearl white, slate grey, sand, copper, plum, crimson,
        turquoise, silver, champagne, walnut brown"""
    ),
    "garment size": _list(
        "x-small, small, medium, large, x-large, xx-large, 3x-large, small tall, large petite"
    ),
    "shoe size": _list("5, 5.5, 6, 6.5, 7, 7.5, 8, 8.5, 9, 9.5, 10, 11 wide, 12"),
    "bed size": _list("twin, twin xl, full, queen, king, california king"),
    "area": _list("2 x 3 ft, 3 x 5 ft, 4 x 6 ft, 5 x 8 ft, 8 x 10 ft, 52 x 63 in, 52 x 84 in"),
    "length": _list("1.5 ft, 3 ft, 3.3 feet, 6 ft, 6.6 feet, 10 ft, 16.4 feet, 25 ft"),
    "capacity": _list("64 gb, 128 gb, 256 gb, 512 gb, 1 tb, 8 gb/256 gb, 16 gb/512 gb"),
    "volume": _list("1 fl oz, 2 fl oz, 3.4 fl oz/100 ml, 5 fl oz, 8 fl oz, 12 fl oz/355 ml, 16.9 fl oz"),
    "weight": _list("4 ounce, 8 ounce, 12 ounce, 1 pound, 2 pound, 5 pound, 3.5 oz/100 g"),
    "pack": _list("pack of 1, pack of 2, pack of 3, pack of 4, pack of 6, pack of 12, 24 count"),
    "scent": _list(
        """unscented, rose, eucalyptus, sandalwood, citrus, vanilla bean, ocean breeze, green tea, cedar,
        honey almond"""
    ),
    "flavor": _list(
        """sea salt, dark chocolate, salted caramel, wild berry, lemon ginger, smoked paprika, honey
        mustard, coconut, maple, chili lime, peppermint, original"""
    ),
    "style": _list(
        "classic, modern, slim, deluxe, with stand, with remote, travel edition, bundle a, bundle b"
    ),
}

BODY = _list(
    """fragrance free, paraben free, cruelty free, dermatologist tested, long lasting, travel sized,
    alcohol free, plant based, hypoallergenic, oil free, fast absorbing, sulfate free, water resistant,
    suited to sensitive skin"""
)
TOOLS = _list(
    """double sided, stainless steel, easy to clean, travel sized, rechargeable, professional grade,
    ergonomic, washable, shatterproof, refillable, leak proof, long lasting, cordless, compact"""
)
DEVICES = _list(
    """noise cancelling, fast charging, water resistant, wireless, energy saving, compact, plug and play,
    high resolution, hands free, long lasting, low latency, dust proof, voice controlled, ultra thin,
    shock resistant"""
)
CABLES = _list(
    """gold plated, fast charging, tangle free, heavy duty, high speed, braided, magnetic, shielded,
    universal, plug and play, detachable, weather proof, adjustable, easy to install"""
)
CLOTHES = _list(
    """machine washable, wrinkle free, quick drying, moisture wicking, slim fitting, loose fitting, high
    waisted, long sleeved, hand washable, breathable, stretchy, lightweight, fleece lined, made of
    organic cotton, tumble dry safe"""
)
SHOES = _list(
    """slip resistant, arch supporting, rubber soled, memory foam cushioned, open toed, closed toed,
    waterproof, breathable, lightweight, vegan leather, ankle high, shock absorbing, wide fitting,
    handmade"""
)
HOME = _list(
    """easy to assemble, space saving, made of solid wood, scratch resistant, foldable, height adjustable,
    wall mounted, heavy duty, easy to clean, handcrafted, stackable, mid century styled, steel framed,
    freestanding"""
)
TEXTILES = _list(
    """machine washable, super soft, light blocking, fade resistant, hypoallergenic, double stitched, pet
    friendly, non slip, reversible, quick drying, stain resistant, hand woven, breathable, made of linen"""
)
FOOD = _list(
    """gluten free, sugar free, non gmo, low sodium, keto friendly, certified organic, dairy free, nut
    free, high in protein, low calorie, fat free, plant based, kosher, shelf stable, free of artificial
    colors, individually wrapped"""
)

SHELVES = (
    Shelf("beauty", ("Beauty & Personal Care", "Skin Care"),
          _list("face serum, night cream, body lotion, clay mask, sunscreen stick, cleansing balm, lip mask"),
          BODY, ("volume", "scent"), (6, 80)),
    Shelf("beauty", ("Beauty & Personal Care", "Hair Care"),
          _list("shampoo bar, hair oil, leave-in conditioner, scalp scrub, styling gel, dry shampoo"),
          BODY, ("volume", "scent", "pack"), (5, 60)),
    Shelf("beauty", ("Beauty & Personal Care", "Tools & Accessories"),
          _list("makeup brush set, eyelash curler, nail file, facial roller, hair clipper, tweezers"),
          TOOLS, ("color", "style"), (4, 70)),
    Shelf("beauty", ("Beauty & Personal Care", "Makeup"),
          _list("lip gloss, eyeliner pen, setting powder, brow gel, cream blush, tinted moisturizer"),
          BODY, ("color", "pack"), (5, 45)),
    Shelf("beauty", ("Beauty & Personal Care", "Oral Care"),
          _list("electric toothbrush, tongue scraper, mouth rinse, floss picks, whitening strips, toothpaste "
                "tablets"),
          TOOLS, ("color", "pack"), (4, 120)),
    Shelf("electronics", ("Electronics", "Headphones"),
          _list("over-ear headphones, earbuds, gaming headset, bone conduction headphones, sleep headband"),
          DEVICES, ("color", "style"), (15, 320)),
    Shelf("electronics", ("Electronics", "Computers & Tablets"),
          _list("mini pc, laptop, tablet, external drive, mechanical keyboard, vertical mouse, webcam"),
          DEVICES, ("capacity", "color", "style"), (20, 1300)),
    Shelf("electronics", ("Electronics", "Camera & Photo"),
          _list("trail camera, ring light, camera backpack, tripod, action camera, photo backdrop"),
          DEVICES, ("color", "style"), (18, 480)),
    Shelf("electronics", ("Electronics", "Television & Video"),
          _list("projector, soundbar, streaming stick, tv wall mount, dvd player, universal remote"),
          DEVICES, ("style", "color"), (15, 900)),
    Shelf("electronics", ("Electronics", "Cables & Power"),
          _list("usb c cable, hdmi cable, power bank, wall charger, antenna, surge protector"),
          CABLES, ("length", "color", "pack"), (6, 90)),
    Shelf("fashion", ("Clothing, Shoes & Jewelry", "Women"),
          _list("wrap dress, cardigan, yoga leggings, blouse, maxi skirt, jumpsuit, lounge set"),
          CLOTHES, ("garment size", "color"), (12, 110)),
    Shelf("fashion", ("Clothing, Shoes & Jewelry", "Men"),
          _list("polo shirt, chino shorts, hoodie, flannel shirt, swim trunks, bomber jacket, boxer briefs"),
          CLOTHES, ("garment size", "color"), (12, 130)),
    Shelf("fashion", ("Clothing, Shoes & Jewelry", "Shoes"),
          _list("running shoes, loafers, ankle boots, sandals, slippers, hiking boots, ballet flats"),
          SHOES, ("shoe size", "color"), (18, 190)),
    Shelf("fashion", ("Clothing, Shoes & Jewelry", "Luggage & Bags"),
          _list("crossbody bag, carry-on suitcase, laptop sleeve, tote bag, duffel bag, toiletry pouch"),
          TOOLS, ("color", "style"), (14, 220)),
    Shelf("fashion", ("Clothing, Shoes & Jewelry", "Children"),
          _list("toddler pajamas, school uniform, rain jacket, baby romper, kids sneakers, sun hat"),
          CLOTHES, ("garment size", "color"), (8, 60)),
    Shelf("garden", ("Home & Kitchen", "Furniture"),
          _list("coffee table, bookshelf, accent chair, bar stool, shoe rack, nightstand, bed frame"),
          HOME, ("color", "style"), (30, 980)),
    Shelf("garden", ("Home & Kitchen", "Bedding"),
          _list("duvet cover, mattress topper, throw blanket, pillow set, bed skirt, weighted blanket"),
          TEXTILES, ("bed size", "color"), (15, 240)),
    Shelf("garden", ("Home & Kitchen", "Curtains & Rugs"),
          _list("blackout curtain, area rug, bath mat, table runner, shower curtain, cushion cover"),
          TEXTILES, ("area", "color"), (10, 210)),
    Shelf("garden", ("Home & Kitchen", "Lighting"),
          _list("floor lamp, pendant light, vanity light, string lights, desk lamp, wall sconce"),
          HOME, ("color", "style"), (14, 260)),
    Shelf("garden", ("Home & Kitchen", "Storage & Outdoor"),
          _list("storage basket, laundry hamper, patio umbrella, planter box, folding table, spice rack"),
          HOME, ("color", "pack"), (10, 180)),
    Shelf("grocery", ("Grocery & Gourmet Food", "Snack Foods"),
          _list("granola bars, popcorn, rice crackers, trail mix, veggie chips, beef jerky, dried mango"),
          FOOD, ("flavor", "weight", "pack"), (4, 55)),
    Shelf("grocery", ("Grocery & Gourmet Food", "Beverages"),
          _list("green tea, cold brew coffee, coconut water, sparkling water, hot cocoa mix, herbal tea"),
          FOOD, ("flavor", "pack"), (5, 60)),
    Shelf("grocery", ("Grocery & Gourmet Food", "Pantry Staples"),
          _list("olive oil, tomato sauce, quinoa, pancake mix, almond flour, bouillon cubes, hot sauce"),
          FOOD, ("weight", "pack"), (4, 50)),
    Shelf("grocery", ("Grocery & Gourmet Food", "Meat & Seafood"),
          _list("canned tuna, smoked salmon, turkey sticks, sardines, plant burger, chicken broth"),
          FOOD, ("flavor", "pack"), (5, 90)),
    Shelf("grocery", ("Grocery & Gourmet Food", "Sweets"),
          _list("gummy bears, chocolate truffles, birthday candles cake kit, mints, fruit leather, cookies"),
          FOOD, ("flavor", "weight"), (3, 48)),
)  # fmt: skip

SHOWN_AS = dict.fromkeys(
    ("garment size", "shoe size", "bed size", "area", "length", "volume", "weight"), "size"
)
"""How an option is named on a product's page where that differs; the file writes Style with a capital."""

SYLLABLES = _list(
    """bel, cor, dan, eth, fen, gal, hol, isk, jor, kel, lum, mar, nov, oth, pra, quin, rav, sel, tor, vex"""
)
ENDINGS = _list("a, en, ia, io, is, lo, mont, on, ra, well, wick, wood, ford, ley, mere")
LINES = _list(
    """Aspen, Breeze, Cinder, Drift, Ember, Fable, Grove, Haven, Island, Juniper, Kindle, Lagoon, Meadow,
    Nimbus, Orchard"""
)
EXTRAS = _list(
    """for Travel, for Home and Office, Gift Set, 2024 Edition, for Everyday Use, with Storage Pouch, for
    Small Spaces, for Beginners, Family Pack, with Free Refill, for Outdoor Use"""
)
PURPOSES = _list(
    """daily use, long weekends, small apartments, busy mornings, family evenings, gifts, camping trips,
    the office, guests, students"""
)
PROMISES = _list(
    """Satisfaction guaranteed, Ships in plain recyclable paper, Comes with a one year warranty, Tested in
    our own workshop, Designed by a small team, Rated by thousands of buyers"""
)
