"""Ways to damage a file of annotations: bytes, lines, values of JSON."""

from __future__ import annotations

import json
import random
from typing import Any

STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    3.5,
    float("nan"),
    float("inf"),
    10**400,
    "",
    " ",
    "../../x",
    "a\x00b",
    "\x1b[2J",
    "\ud800",
    "x" * 200_000,
    [],
    [None],
    [[0, 1]],
    [["a", {}]],
    {},
    {"a": 1},
]
CELLS = [b"", b" ", b'"', b"\x00", b"\xff\xfe", b"../../x", b"-1", b"1e400", b"\t", b",", b"\r"]


def damage(data: bytes, suffix: str, rng: random.Random) -> tuple[str, bytes]:
    """The name of the damage and the damaged bytes."""
    kinds = ["flip", "cut", "hole", "insert", "repeat"]
    if suffix == ".json":
        kinds += ["value"] * 4
    elif suffix != ".parquet":
        kinds += ["cell"] * 2
    kind = rng.choice(kinds)
    if kind == "value":
        return kind, _value(data, rng)
    if kind == "cell":
        return kind, _cell(data, rng)
    if kind == "repeat":
        return kind, _repeat(data, rng)
    place = rng.randrange(len(data))
    if kind == "cut":
        return kind, data[:place]
    if kind == "hole":
        return kind, data[:place] + data[place + rng.randint(1, 20) :]
    if kind == "insert":
        return kind, data[:place] + rng.choice(CELLS) + data[place:]
    flipped = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return kind, bytes(flipped)


def _repeat(data: bytes, rng: random.Random) -> bytes:
    """One line twice; of a JSON file, which has one line, a part of it."""
    lines = data.splitlines(keepends=True)
    number = rng.randrange(len(lines))
    return b"".join([*lines[:number], lines[number], *lines[number:]])


def _cell(data: bytes, rng: random.Random) -> bytes:
    """One cell of a table replaced."""
    lines = data.split(b"\n")
    number = rng.randrange(len(lines))
    separator = b"\t" if b"\t" in data else b","
    cells = lines[number].split(separator)
    cells[rng.randrange(len(cells))] = rng.choice([*CELLS, cells[0], cells[-1]])
    lines[number] = separator.join(cells)
    return b"\n".join(lines)


def _value(data: bytes, rng: random.Random) -> bytes:
    """One value of a JSON document removed, replaced, repeated or moved."""
    document = json.loads(data)
    holder, key = rng.choice(list(_places(document)))
    action = rng.choice(["remove", "replace", "replace", "repeat", "rename"])
    if action == "remove":
        del holder[key]
    elif action == "replace":
        holder[key] = rng.choice(STRANGE)
    elif action == "repeat" and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif isinstance(holder, dict):
        holder[rng.choice(["", "x", "../x", f"{key} "])] = holder.pop(key)
    else:
        rng.shuffle(holder)
    return json.dumps(document).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) of a document, at any depth."""
    if not isinstance(value, dict | list):
        return []
    keys = range(len(value)) if isinstance(value, list) else value
    found: list[tuple[Any, Any]] = []
    for key in keys:
        found += [(value, key), *_places(value[key])]
    return found
