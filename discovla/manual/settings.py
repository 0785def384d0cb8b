"""Every setting, from the classes and schemas that check it.

Settings of a run come from `discovla/settings.py` and `methods/options.py`, everything else from
`workflow/schemas/`; values come from `config/`. Nothing is told here a second time.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from discovla.config import load_checked, load_folder, load_schema
from discovla.methods.options import OPTIONS
from discovla.settings import Options, RunSettings

FILES = {
    "config": "config.yaml",
    "dataset": "datasets/NAME.yaml",
    "table": "tables/NAME.yaml",
    "figure": "figures/NAME.yaml",
    "methods": "methods.yaml",
    "backbones": "backbones.yaml",
    "captioners": "captioners.yaml",
    "defaults": "defaults.yaml",
    "sources": "sources.yaml",
    "estimate": "estimate.yaml",
}
"""Schema → the files of `config/` that it checks, in the order a user meets them."""
ANY = "NAME"
"""Stands in a path for a key of the user's own."""
TYPES = {"integer": "whole number", "string": "text", "object": "mapping", "array": "list"}


@dataclass(frozen=True)
class Entry:
    """One setting as a reader needs it.

    Attributes:
        group: what it belongs to: a heading of `RunSettings`, a method's options, or a file.
        allowed: type, choices and limits in words.
        default: the value without which the setting stands nowhere; None = it must be given.
        identity: whether it is part of a run's id, for settings of a run.
        given: the values that `config/` gives it, each with who gives it.
    """

    group: str
    name: str
    meaning: str
    allowed: str
    default: str | None = None
    identity: bool | None = None
    given: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def told(self, most: int | None = None) -> str:
        """`value (who, who); value (who)`, naming `most` of them for each value."""
        parts = []
        for value, places in self.given:
            more = len(places) - most if most else 0
            names = ", ".join(places[:most] if more > 1 else places)
            parts.append(f"{value} ({names}{f' and {more} more' if more > 1 else ''})")
        return "; ".join(parts)


def run_settings(folder: str | Path = "config") -> list[Entry]:
    """The settings of a run, those of single methods last."""
    values = list(_values(Path(folder)))
    groups = _headings(RunSettings)
    entries = [
        _entry(RunSettings, name, groups.get(name, "Other"), values)
        for name in (f.name for f in fields(RunSettings))
        if name != "options"
    ]
    methods: dict[type[Options], list[str]] = {}
    for method, kind in OPTIONS.items():
        methods.setdefault(kind, []).append(method)
    for kind, names in methods.items():
        group = f"Of {', '.join(f'`{name}`' for name in names)} alone"
        of_these = [(place, value) for place, value in values if place.split()[0] in names]
        entries += [_entry(kind, f.name, group, of_these) for f in fields(kind)]
    return entries


def file_settings(schema: str, folder: str | Path = "config") -> list[Entry]:
    """The keys of one kind of file, in the order of its schema; nested keys joined by dots."""
    root = load_schema(schema)
    shipped = load_checked(Path(folder) / "config.yaml", "config") if schema == "config" else {}
    return list(_keys(root, root, "", f"config/{FILES[schema]}", shipped))


def _headings(kind: type[Any]) -> dict[str, str]:
    """The comment above each block of fields: `# Losses`."""
    found, heading = {}, "Other"
    for line in inspect.getsource(kind).splitlines():
        if match := re.fullmatch(r"    # ([A-Z][\w ]*)", line):
            heading = match[1]
        elif match := re.match(r"    (\w+): .* = setting\(", line):
            found[match[1]] = heading
    return found


def _entry(
    kind: type[Any], name: str, group: str, values: Iterable[tuple[str, Mapping[str, Any]]]
) -> Entry:
    spec = next(f for f in fields(kind) if f.name == name)
    named = get_type_hints(kind)[name]
    allowed = {
        bool: "true, false",
        int: "whole number",
        float: "number",
        str: "text",
        int | None: "whole number or null",
        tuple[int, ...]: "list of whole numbers",
    }[named]
    if choices := spec.metadata["choices"]:
        allowed = ", ".join(f"`{choice}`" for choice in choices)
    elif spec.metadata["minimum"] is not None:
        allowed += f", at least {spec.metadata['minimum']:g}"
    return Entry(
        group,
        name,
        spec.metadata["doc"],
        allowed,
        None if spec.default is MISSING else _shown(spec.default),
        spec.metadata["hashed"],
        _given(name, values),
    )


def _given(
    name: str, values: Iterable[tuple[str, Mapping[str, Any]]]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Values with who gives them, in the order in which `config/` is read."""
    found: dict[str, list[str]] = {}
    for place, given in values:
        if name in given:
            found.setdefault(_shown(given[name]), []).append(place)
    return tuple((value, tuple(places)) for value, places in found.items())


def _values(folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Everything in `config/` that sets something for whole tables: a place and its settings."""
    defaults = load_checked(folder / "defaults.yaml", "defaults")
    yield "defaults", defaults["settings"]
    for recipe, given in defaults["recipes"].items():
        yield f"recipe {recipe}", given
    for dataset, entry in load_folder(folder / "datasets", "dataset").items():
        yield dataset, entry["set"]
    for method, entry in load_checked(folder / "methods.yaml", "methods").items():
        yield method, entry["set"]
        for protocol, how in entry["protocols"].items():
            yield f"{method} {protocol}", how["set"]


def _keys(
    root: Mapping[str, Any], node: Mapping[str, Any], prefix: str, group: str, shipped: Any
) -> Iterator[Entry]:
    """The keys below a node of a schema, each followed by its own keys."""
    required = node.get("required", ())
    for name, child in _children(root, node):
        path = f"{prefix}.{name}" if prefix else name
        value = shipped.get(name, MISSING) if isinstance(shipped, Mapping) else MISSING
        default = None if value is MISSING else _shown(value)
        meaning = child.get("description", "")
        if prefix and name in required:
            meaning = f"{meaning} (needed)".strip()
        if name == ANY and not child.get("description") and not _has_keys(child):
            continue  # its parent says what it maps to
        yield Entry(group, path, meaning, _allowed(root, child), default)
        inner = _resolve(root, child["items"]) if "items" in child else child
        below = f"{path}[]" if "items" in child else path
        yield from _keys(root, inner, below, group, value)


def _children(
    root: Mapping[str, Any], node: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, child in node.get("properties", {}).items():
        yield name, _resolve(root, child)
    for pattern, child in node.get("patternProperties", {}).items():
        for name in re.sub(r"[\^$()]", "", pattern).split("|"):
            yield name, _resolve(root, child)
    others = node.get("additionalProperties")
    if isinstance(others, Mapping):
        yield ANY, _resolve(root, others)


def _has_keys(node: Mapping[str, Any]) -> bool:
    return any(key in node for key in ("properties", "patternProperties"))


def _resolve(root: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A node with what its `$ref` points to."""
    if "$ref" not in node:
        return node
    target: Any = root
    for part in node["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _allowed(root: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(f"`{_shown(value)}`" for value in node["enum"])
    if "oneOf" in node and "type" not in node:
        return " or ".join(_allowed(root, _resolve(root, choice)) for choice in node["oneOf"])
    kinds = node.get("type", "anything")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    words = " or ".join(
        "true, false" if kind == "boolean" else TYPES.get(kind, kind) for kind in kinds
    )
    others = node.get("additionalProperties")
    if isinstance(others, Mapping) and not _has_keys(others):
        words += f" to {_allowed(root, _resolve(root, others))}"
    if "items" in node:
        words += f" of {_allowed(root, _resolve(root, node['items']))}"
    if "minimum" in node:
        words += f", at least {node['minimum']:g}"
    if "exclusiveMinimum" in node:
        words += f", above {node['exclusiveMinimum']:g}"
    if "maximum" in node:
        words += f", at most {node['maximum']:g}"
    return words


def _shown(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_shown(item)}' for key, item in value.items())}}}"
    if isinstance(value, float):
        return re.sub(r"e-0", "e-", f"{value:g}")
    return str(value)
