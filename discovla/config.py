"""The YAML files of `config/`: no repeated keys, closed schemas, errors that name the place."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from discovla.errors import UserError

ID = r"[a-z0-9][a-z0-9_-]*"
"""What a name in config/ looks like: it becomes part of paths."""
SCHEMAS = Path(__file__).resolve().parents[1] / "workflow" / "schemas"


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key written twice in one mapping."""


def _mapping_without_repeats(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            line = key_node.start_mark.line + 1
            raise UserError(f"{loader.name}, line {line}: {key!r} is given twice; keep one")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats
)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping; raise `UserError` naming file and line if that is not possible."""
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as handle:
            value = yaml.load(handle, Loader=_UniqueKeyLoader)  # a SafeLoader
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file. Run from the root of the repository, where config/ lies."
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: a mapping of names to values is expected, got {value!r}")
    return value


@functools.cache
def load_schema(name: str) -> dict[str, Any]:
    """`workflow/schemas/{name}.schema.yaml`."""
    return load_yaml(SCHEMAS / f"{name}.schema.yaml")


def validate(value: Mapping[str, Any], schema: str, where: str) -> None:
    """Check `value` against `workflow/schemas/{schema}.schema.yaml`.

    Raises:
        UserError: names the file, the key and what is allowed there.
    """
    validator = jsonschema.Draft202012Validator(load_schema(schema))
    error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if error is None:
        return
    key = ".".join(str(part) for part in error.absolute_path) or "(top level)"
    known = error.schema.get("properties") if isinstance(error.schema, dict) else None
    hint = f" Known: {', '.join(sorted(known))}." if known else ""
    raise UserError(f"{where}: {key}: {error.message}.{hint}")


def load_checked(path: str | Path, schema: str) -> dict[str, Any]:
    """Read a YAML file and check it against a schema."""
    value = load_yaml(path)
    validate(value, schema, str(path))
    return value


def located(place: str) -> str:
    """`place` with `package:` replaced by the folder of this package: files that ship with it."""
    return place.replace("package:", f"{Path(__file__).resolve().parent}/")


def load_folder(folder: Path, schema: str) -> dict[str, Mapping[str, Any]]:
    """Every YAML file of a folder, checked, by its name; `UserError` if there is none."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise UserError(f"{folder}: no YAML files; run from the root of the repository")
    return {path.stem: load_checked(path, schema) for path in files}


def check_names(
    folder: Path,
    datasets: Mapping[str, Any],
    tables: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Any],
) -> None:
    """Refuse names that could not stand in a path or a command, and names given twice."""
    for kind, names in (("datasets", datasets), ("tables", tables), ("figures", figures)):
        for name in names:
            if not re.fullmatch(ID, name):
                raise UserError(
                    f"{folder}/{kind}/{name}.yaml: a name has small letters, digits, - and _ only, "
                    "and starts with a letter or digit"
                )
    both = sorted(tables.keys() & figures.keys())
    if both:
        raise UserError(f"{folder}: {both} are both in tables/ and figures/; rename one")
    for table, spec in tables.items():
        rows = [row["row"] for row in spec["rows"]]
        twice = sorted({name for name in rows if rows.count(name) > 1})
        if twice:
            raise UserError(
                f"{folder}/tables/{table}.yaml: rows {twice} stand there twice; a row's id is the "
                "name of its file"
            )


def check_quotes(
    folder: Path, tables: Mapping[str, Mapping[str, Any]], quote: Mapping[str, list[str]]
) -> None:
    """Refuse rows to be quoted that no table has."""
    for table, names in quote.items():
        rows = [row["row"] for row in tables.get(table, {}).get("rows", ())]
        unknown = [name for name in names if name not in rows]
        if unknown:
            raise UserError(
                f"{folder}/config.yaml: quote.{table}: no such rows: {unknown}; "
                f"known: {rows or sorted(tables)}"
            )


def check_selections(
    folder: Path, tables: Mapping[str, Mapping[str, Any]], methods: Mapping[str, Any]
) -> None:
    """Refuse rows whose checkpoint cannot, or must not, be chosen after the training."""
    for table, spec in tables.items():
        for row in spec["rows"]:
            rule = row.get("selection", "last")
            if rule == "last":
                continue
            where = f"{folder}/tables/{table}.yaml: row {row['row']}: selection {rule}"
            if not methods.get(row["method"], {}).get("trains", True):
                raise UserError(f"{where}: method {row['method']} trains nothing to choose from")
            if row.get("post") == "qbnorm":
                raise UserError(f"{where}: the bank of qbnorm is encoded for the last step only")
            if rule == "test_best" and "paper" in row:
                raise UserError(
                    f"{where}: a checkpoint chosen on the test set must not stand beside the "
                    "paper's number; make it a row of its own, without `paper`"
                )
