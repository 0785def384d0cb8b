from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from discovla.errors import UserError
from discovla.search import vectors
from discovla.search.vectors import VectorTable

SCHEMA = pa.schema([("entry", pa.string())])
WIDTH = 32


def unit(rng: np.random.Generator, count: int, topics: int = 20) -> np.ndarray:
    """Vectors around a few directions."""
    centres = np.random.default_rng(0).standard_normal((topics, WIDTH))
    found = centres[rng.integers(topics, size=count)] + 0.7 * rng.standard_normal((count, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def rows(names: list[str], matrix: np.ndarray, table: VectorTable) -> pa.Table:
    return pa.table({"entry": names, "vector": vectors.vectors(matrix)}, schema=table.schema)


def naive(known: dict[str, np.ndarray], query: np.ndarray, count: int) -> list[str]:
    """The definition: every vector's cosine, sorted."""
    return sorted(known, key=lambda name: -float(known[name] @ query))[:count]


def filled(path: Path, count: int, seed: int = 1) -> tuple[VectorTable, dict[str, np.ndarray]]:
    table = VectorTable(path, SCHEMA, WIDTH)
    known = {f"v'{n}": v for n, v in enumerate(unit(np.random.default_rng(seed), count))}
    table.add(rows(list(known), np.stack(list(known.values())), table))
    return table, known


def ask(table: VectorTable, query: np.ndarray, count: int = 5, **more: object) -> list[str]:
    return table.nearest(query, count, ["entry"], **more)["entry"].to_pylist()  # type: ignore[arg-type]


def test_small_tables_are_searched_exactly_through_all_changes(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    table, known = filled(tmp_path / "t", 80)
    for step in range(6):
        query = unit(rng, 1)[0]
        assert ask(table, query) == naive(known, query, 5)
        found = table.nearest(query, 3, ["entry"])
        expected = [known[name] @ query for name in found["entry"].to_pylist()]
        assert np.allclose(found["score"].to_numpy(), expected, atol=1e-6)
        gone = [str(name) for name in rng.choice(list(known), 7, replace=False)]
        table.remove("entry", gone)
        known = {name: v for name, v in known.items() if name not in gone}
        changed = dict(zip([*list(known)[:3], f"new{step}"], unit(rng, 4), strict=True))
        table.put(rows(list(changed), np.stack(list(changed.values())), table), "entry")
        known |= changed
        if step % 2:
            table.tidy()
    assert len(table) == len(known)
    assert table.how() == "exact"


def test_a_filter_looks_at_its_rows_only(tmp_path: Path) -> None:
    table, known = filled(tmp_path / "t", 50)
    query, some = known["v'3"], ["v'9", "v'10", "no such"]
    assert sorted(ask(table, query, column="entry", values=some)) == ["v'10", "v'9"]
    assert table.rows(["entry"], "entry", [])["entry"].to_pylist() == []


def test_large_tables_get_an_index_that_follows_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "EXACT_LIMIT", 500)
    monkeypatch.setattr(vectors, "PARTITION", 100)
    table, known = filled(tmp_path / "t", 3000)
    assert table.how() == "exact"
    table.tidy()
    assert table.how().startswith("approximate")
    queries = unit(np.random.default_rng(9), 20)

    def recall() -> float:
        hits = [len(set(ask(table, q)) & set(naive(known, q, 5))) for q in queries]
        return sum(hits) / (5 * len(queries))

    assert recall() >= 0.95
    assert all(ask(table, q, exact=True) == naive(known, q, 5) for q in queries)
    more = {f"more{n}": v for n, v in enumerate(unit(np.random.default_rng(3), 200))}
    table.add(rows(list(more), np.stack(list(more.values())), table))
    known |= more
    best = set().union(*(ask(table, q) for q in queries))
    table.remove("entry", best)
    known = {name: v for name, v in known.items() if name not in best}
    assert recall() >= 0.95  # before the index knows
    assert not best & set().union(*(ask(table, q) for q in queries))
    table.tidy()
    assert table.indexed()[0] == len(table) == len(known)
    assert recall() >= 0.95
    table.remove("entry", list(known)[100:])
    table.tidy()
    assert table.how() == "exact"


def test_tidying_up_after_changes_leaves_the_cells_and_what_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "EXACT_LIMIT", 500)
    monkeypatch.setattr(vectors, "PARTITION", 50)
    monkeypatch.setattr(vectors, "LEAST_PROBES", 1)
    table, known = filled(tmp_path / "t", 3000)
    table.tidy()
    built = table.indexed()[1]
    for turn in range(4):
        more = {f"{turn}:{n}": v for n, v in enumerate(unit(np.random.default_rng(turn), 300))}
        table.add(rows(list(more), np.stack(list(more.values())), table))
        table.remove("entry", list(known)[:300])
        known = dict([*known.items()][300:]) | more
        table.tidy()
        # Once the library's own way of it had joined the small cells: fewer, so fewer to look into.
        assert table.indexed() == (len(table), built)
        parts = table._data.stats.index_stats(vectors.VECTOR)["indices"]
        assert len(parts) == 2  # what came later lies in one beside the first
    queries = unit(np.random.default_rng(9), 50)
    hits = [len(set(ask(table, q)) & set(naive(known, q, 5))) for q in queries]
    assert sum(hits) / (5 * len(queries)) >= 0.95


def test_readers_see_a_change_after_a_refresh(tmp_path: Path) -> None:
    table, known = filled(tmp_path / "t", 20)
    reader = VectorTable(tmp_path / "t")
    table.remove("entry", list(known)[:5])
    table.tidy()
    reader.refresh()
    assert len(reader) == 15


def test_what_is_no_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a readable part of a search index"):
        VectorTable(tmp_path / "absent")
    filled(tmp_path / "t", 5)
    for file in (tmp_path / "t" / "_versions").iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(UserError, match="--rebuild"):
        VectorTable(tmp_path / "t")
