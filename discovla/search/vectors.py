"""Rows with unit vectors on disk, and their nearest neighbours: a Lance table.

Lance writes a new version of a table with every change and makes it the current one by a rename,
so a process that dies leaves the version before. Small tables are searched exactly; large ones
through an inverted file of vectors in one bit per dimension (RaBitQ), whose best candidates are
scored again with the stored vectors.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovla.errors import UserError

VECTOR, KEY = "vector", "entry"
"""Columns that every table has: what is near, and what rows are looked up by."""
EXACT_LIMIT = 50_000
"""Up to so many vectors every query looks at all of them."""
KIND = "IVF_RQ"
"""Built in a tenth of the time of a graph (HNSW) of the same recall; adding to it costs little."""
PARTITION = 1_000
"""Vectors in a cell of the inverted file, about."""
PROBES = 0.4
"""Share of the cells that a query looks into. Large, because captions lie outside of the cloud of
videos; a bit per dimension makes a look cheap. `python -m benchmarks.search` measures it."""
LEAST_PROBES = 40
REFINE = 10
"""So many candidates per wanted neighbour are scored again with the stored vectors."""
KEPT = timedelta(minutes=1)
"""Versions that a search may just be reading stay for so long."""
_AT_ONCE = 500
"""Values of one filter; longer ones overflow the parser's stack."""


def lance() -> Any:
    """The library, an optional extra.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("LANCE_LOG", "error")  # it warns on stderr at every query
    try:
        import lance
    except ImportError:
        raise UserError(
            "searching videos needs packages that are not installed; add the extra 'search': "
            "pip install 'discovla[search]'"
        ) from None
    return lance


class VectorTable:
    """A table with a text column `entry`, and a column `vector` (D,) float32 of unit length.

    Args:
        path: the table's folder; made with no rows if it is not there and `schema` is given.
        schema: without the vector.
        width: D.

    Raises:
        UserError: no such table, or a damaged one.
    """

    def __init__(
        self, path: str | Path, schema: pa.Schema | None = None, width: int | None = None
    ) -> None:
        self.path = Path(path)
        library = lance()
        if schema is not None and not self.path.exists():
            whole = schema.append(pa.field(VECTOR, pa.list_(pa.float32(), width)))
            # Made elsewhere and moved: a folder of this name is always a whole table.
            making = self.path.with_name(f".{self.path.name}.making")
            shutil.rmtree(making, ignore_errors=True)
            library.write_dataset(whole.empty_table(), str(making))
            making.replace(self.path)
        try:
            self._data = library.dataset(str(self.path))
        except (ValueError, OSError) as error:
            raise UserError(
                f"{self.path}: not a readable part of a search index ({_first_line(error)}). "
                "Make the index again with --rebuild."
            ) from None

        self._known = (-1, 0, 0)  # of which version `indexed` was asked, and its answer

    def __len__(self) -> int:
        return int(self._data.count_rows())

    @property
    def schema(self) -> pa.Schema:
        """Of all columns, the vector last."""
        return self._data.schema

    @property
    def version(self) -> int:
        """Number of the version that is read; every change makes a new one."""
        return int(self._data.version)

    def refresh(self) -> None:
        """Go on with the newest version, which another process may have made."""
        self._data.checkout_latest()

    # Changes

    def add(self, rows: pa.Table | Iterable[pa.RecordBatch]) -> None:
        """Append rows in one step: all of them are there afterwards, or none."""
        if not isinstance(rows, pa.Table):
            rows = pa.RecordBatchReader.from_batches(self.schema, rows)
        self._data.insert(rows, mode="append")

    def put(self, rows: pa.Table, key: str) -> None:
        """In one step, replace the rows with these values of `key` and append the other ones."""
        merge = self._data.merge_insert(key)
        merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)
        self.refresh()

    def remove(self, column: str, values: Iterable[str]) -> None:
        """Remove the rows that have one of these values; each few hundred values in one step."""
        for part in _filters(column, values):
            self._data.delete(part)

    def tidy(self) -> None:
        """Join small files, bring the neighbour index up to date, drop what nobody can read.

        Nothing that a search finds is changed by it, except that a large table is searched fast.
        """
        self._data.optimize.compact_files()
        self._index()
        # Also files that a process died over; the caller sees to it that no other one is writing.
        self._data.cleanup_old_versions(older_than=KEPT, delete_unverified=True)

    def _index(self) -> None:
        rows = len(self)
        if rows <= EXACT_LIMIT:
            for name in self._indices():
                self._data.drop_index(name)
            return
        covered, cells = self.indexed()
        if cells and rows <= 2 * cells * PARTITION:
            if rows > covered:
                self._cover()
            return
        self._data.create_scalar_index(KEY, "BTREE", name=KEY, replace=True)
        self._data.create_index(
            VECTOR,
            KIND,
            name=VECTOR,
            metric="dot",
            num_partitions=max(1, rows // PARTITION),
            replace=True,
        )

    def _cover(self) -> None:
        """Bring rows into the neighbour index that came after it was built.

        They get a part of their own beside the first one, in which all later ones are joined. Left
        alone, Lance would also join the first part's small cells, half of ours, and the probed
        share of them would find less.
        """
        self._data.optimize.optimize_indices(index_names=[KEY])
        parts = len(self._data.stats.index_stats(VECTOR)["indices"])
        self._data.optimize.optimize_indices(index_names=[VECTOR], num_indices_to_merge=parts - 1)

    def _indices(self) -> set[str]:
        return {index.name for index in self._data.describe_indices()}

    # Searching

    def indexed(self) -> tuple[int, int]:
        """Rows that the neighbour index covers and its number of cells; (0, 0) without one."""
        version = self.version
        if self._known[0] != version:
            covered, cells = 0, 0
            if VECTOR in self._indices():
                found = self._data.stats.index_stats(VECTOR)
                covered = int(found["num_indexed_rows"])
                cells = max(int(part["num_partitions"]) for part in found["indices"])
            self._known = (version, covered, cells)
        return self._known[1:]

    def how(self) -> str:
        """How this table is searched, in words."""
        cells = self.indexed()[1]
        if not cells:
            return "exact"
        return f"approximate ({KIND}, {probes(cells)} of {cells} cells)"

    def nearest(
        self,
        query: NDArray[np.float32],
        count: int,
        columns: Sequence[str] = (),
        *,
        column: str | None = None,
        values: Iterable[str] = (),
        exact: bool = False,
    ) -> pa.Table:
        """The rows with the largest cosine, best first.

        Args:
            query: (D,) of unit length.
            count: how many rows.
            columns: columns to read; `score` (float32, the cosine) is added.
            column: look only at rows that have one of `values` in this column.
            values: at most a few hundred.
            exact: look at every row, whatever the size of the table.
        """
        nearest: dict[str, Any] = {"column": VECTOR, "q": query, "k": count, "metric": "dot"}
        options: dict[str, Any] = {}
        if column is not None:
            (options["filter"],) = _filters(column, values)
            options["prefilter"] = exact = True
        if exact:
            nearest["use_index"] = False
        elif (cells := self.indexed()[1]) > 0:
            nearest |= {"nprobes": probes(cells), "refine_factor": REFINE}
        found = self._data.to_table(
            columns=[*columns, "_distance"],
            nearest=nearest,
            disable_scoring_autoprojection=True,
            **options,
        )
        distance = found["_distance"].to_numpy()
        place = found.column_names.index("_distance")
        return found.set_column(place, "score", pa.array(1 - distance, pa.float32()))

    def rows(
        self,
        columns: Sequence[str],
        column: str | None = None,
        values: Iterable[str] = (),
        also: str = "",
    ) -> pa.Table:
        """Columns of all rows, or of those that have one of `values` in `column`.

        `also` is a further condition in SQL; nothing of a user's may stand in it.
        """
        if column is None:
            return self._data.to_table(columns=list(columns))
        parts = [
            self._data.to_table(
                columns=list(columns), filter=f"{part} AND {also}" if also else part
            )
            for part in _filters(column, values)
        ]
        if not parts:
            return self._data.to_table(columns=list(columns), limit=0)
        return pa.concat_tables(parts)


def probes(cells: int) -> int:
    """Cells that a query looks into."""
    return min(cells, max(LEAST_PROBES, round(PROBES * cells)))


def vectors(matrix: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """The column of (N, D) vectors."""
    flat = pa.array(np.ascontiguousarray(matrix, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def matrix_of(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """(N, D) of a column of vectors."""
    joined = column.combine_chunks()
    width = joined.type.list_size
    found: NDArray[np.float32] = joined.flatten().to_numpy().reshape(-1, width)
    return found


def _filters(column: str, values: Iterable[str]) -> Iterator[str]:
    quoted = ["'" + value.replace("'", "''") + "'" for value in values]
    for start in range(0, len(quoted), _AT_ONCE):
        yield f"{column} IN ({', '.join(quoted[start : start + _AT_ONCE])})"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
