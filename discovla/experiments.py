"""Experiments as data: tables of rows → runs with ids → the files they need.

The only module that the workflow imports while Snakemake parses: it needs neither torch nor pandas.
A setting is resolved in this order, later wins: `defaults.yaml` → recipe → dataset → method →
method on this dataset → row.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from discovla.captioning.length import longest_answer
from discovla.config import (
    ID,
    check_names,
    check_quotes,
    check_selections,
    load_checked,
    load_folder,
    load_yaml,
    located,
    validate,
)
from discovla.errors import UserError
from discovla.identity import captions_identity, frames_identity
from discovla.methods.options import read_settings
from discovla.models.dims import read_dims
from discovla.runs import PAPER_BACKBONE, POSTS, SELECTIONS, Row, Run
from discovla.settings import RunSettings

__all__ = ["ID", "PAPER_BACKBONE", "POSTS", "SELECTIONS", "Experiments", "Row", "Run", "located"]


@dataclass(frozen=True)
class Experiments:
    """Everything below `config/`, checked and resolved."""

    config: Mapping[str, Any]
    defaults: Mapping[str, Any]
    methods: Mapping[str, Any]
    backbones: Mapping[str, Any]
    captioners: Mapping[str, Any]
    datasets: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, Mapping[str, Any]]
    figures: Mapping[str, Mapping[str, Any]]
    folder: Path
    _runs: dict[str, dict[str, Run]] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        config: Mapping[str, Any] | None = None,
        folder: str | Path = "config",
        overlay: str | Path | None = None,
    ) -> Experiments:
        """Read and check `folder`.

        Args:
            config: Snakemake's merged configuration, in place of config.yaml.
            folder: with everything else.
            overlay: a file laid over config.yaml.

        Raises:
            UserError: naming file, row and key of the first thing that is not right.
        """
        folder = Path(folder)
        if config is None:
            config = load_checked(folder / "config.yaml", "config")
            if overlay:
                config = {**config, **load_yaml(overlay)}
                validate(config, "config", str(overlay))
        else:
            validate(config, "config", f"{folder}/config.yaml")
        found = cls(
            config=config,
            folder=folder,
            **{
                kind: load_checked(folder / f"{kind}.yaml", kind)
                for kind in ("defaults", "methods", "backbones", "captioners")
            },
            datasets=load_folder(folder / "datasets", "dataset"),
            tables=load_folder(folder / "tables", "table"),
            figures=load_folder(folder / "figures", "figure"),
        )
        check_names(folder, found.datasets, found.tables, found.figures)
        check_quotes(folder, found.tables, config["quote"])
        check_selections(folder, found.tables, found.methods)
        return found

    # Datasets

    def dataset(self, name: str) -> Mapping[str, Any]:
        """One entry of config/datasets; raise `UserError` with the known names."""
        if name not in self.datasets:
            raise UserError(
                f"no dataset {name!r}; known: {sorted(self.datasets)} ({self.folder}/datasets)"
            )
        return self.datasets[name]

    def root(self, name: str) -> str:
        """The folder with a dataset's own files."""
        entry = self.dataset(name)
        root = entry.get("root") or self.config["data"].get(name)
        if not root:
            raise UserError(f"{self.folder}/config.yaml: data.{name}: say where its files are")
        return str(root)

    def seeds(self, name: str) -> list[int]:
        """Seeds of every run on this dataset."""
        own = self.config["seeds"] or self.dataset(name).get("seeds") or self.defaults["seeds"]
        return list(own)

    def has_val(self, name: str) -> bool:
        """Whether a dataset has a split to choose on."""
        return "val" in self.dataset(name).get("expected", {})

    def device(self, name: str) -> str:
        """`cpu`, `cuda` or `auto`: the dataset's own choice goes first."""
        return str(self.dataset(name).get("device") or self.config["device"])

    # Runs

    def resolve(
        self,
        dataset: str,
        method: str,
        backbone: str,
        overrides: Mapping[str, Any],
        recipe: str = "released",
        where: str = "command line",
        protocol: str = "unified",
    ) -> Run:
        """The run of one row; `where` names the row in error messages."""
        entry = self.dataset(dataset)
        if method not in self.methods:
            raise UserError(f"{where}: no method {method!r}; known: {sorted(self.methods)}")
        if recipe not in self.defaults["recipes"]:
            raise UserError(
                f"{where}: no recipe {recipe!r}; known: {sorted(self.defaults['recipes'])}"
            )
        values = {
            **self.defaults["settings"],
            **self.defaults["recipes"][recipe],
            **entry["set"],
            **self.methods[method]["set"],
            **self._protocol(method, protocol, dataset, where),
            **entry.get("methods", {}).get(method, {}),
            **overrides,
            "method": method,
            "backbone": entry["backbones"][backbone],
        }
        settings = read_settings(values, where)
        found = self.backbone(settings.backbone, where)
        if dims := read_dims(found["architecture"]):
            try:
                settings.options.check(settings, dims)
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
        frames_id = frames_identity(dataset, entry, settings)
        captions_id = None
        if settings.needs_captions:
            captioner = self.captioners.get(settings.captioner)
            captions_id = captions_identity(frames_id, settings, captioner, where)
        return Run(
            dataset=dataset,
            settings=settings,
            backbone=found,
            trains=self.methods[method]["trains"],
            frames_id=frames_id,
            captions_id=captions_id,
        )

    def _protocol(self, method: str, protocol: str, dataset: str, where: str) -> Mapping[str, Any]:
        """What a protocol sets for a method, and then for this dataset."""
        known = self.methods[method]["protocols"]
        if protocol not in known:
            raise UserError(
                f"{where}: method {method} has no protocol {protocol!r}; known: {sorted(known)} "
                f"({self.folder}/methods.yaml)"
            )
        return {**known[protocol]["set"], **known[protocol].get("datasets", {}).get(dataset, {})}

    def backbone(self, name: str, where: str) -> dict[str, Any]:
        """An entry of config/backbones.yaml, its weights replaced by the user's own file."""
        if name not in self.backbones:
            raise UserError(f"{where}: no backbone {name!r}; known: {sorted(self.backbones)}")
        entry = dict(self.backbones[name])
        entry["weights"] = located(self.config["weights"].get(name, entry["weights"]))
        entry["architecture"] = located(entry["architecture"])
        return {"name": name, **entry}

    def captioner(self, name: str) -> dict[str, Any]:
        """An entry of config/captioners.yaml, its model replaced by the user's own folder."""
        entry = dict(self.captioners[name])
        entry["model"] = located(self.config["captioner_path"].get(name, entry["model"]))
        return entry

    def longest_answer(self, settings: RunSettings) -> int:
        """Tokens of the longest answer of the captioner that a run names."""
        given = self.captioners[settings.captioner]["max_new_tokens"]
        return longest_answer(given, settings.words)

    # Tables and figures

    def rows(self, dataset: str, table: str) -> list[Row]:
        """The rows of a table for one dataset, in the paper's order.

        Left out: rows of a backbone or a val split that the dataset has not, and rows with nothing
        to show (no method to train and nothing printed for this dataset).
        """
        if table in self.figures:
            return self._points(dataset, table)
        if table not in self.tables:
            known = sorted([*self.tables, *self.figures])
            raise UserError(f"no table or figure {table!r}; known: {known}")
        rows = [self._row(dataset, table, spec) for spec in self.tables[table]["rows"]]
        return [row for row in rows if row is not None]

    def row(self, dataset: str, table: str, name: str) -> Row:
        """One row of a table by its id."""
        rows = {row.row: row for row in self.rows(dataset, table)}
        if name not in rows:
            raise UserError(f"{dataset}/{table} has no row {name!r}; known: {sorted(rows)}")
        return rows[name]

    def metrics_files(self, row: Row, results: str = "results") -> list[str]:
        """The metrics files of a row, one per seed; zero-shot has nothing a seed could change."""
        if row.run is None:
            return []
        seeds = self.seeds(row.dataset)[: None if row.run.trains else 1]
        folder = f"{results}/{row.dataset}/runs/{row.run.run_id}"
        return [f"{folder}/seed{seed}/{row.metrics_name}" for seed in seeds]

    def _row(self, dataset: str, table: str, spec: Mapping[str, Any]) -> Row | None:
        backbone = spec.get("backbone", PAPER_BACKBONE)
        if backbone not in self.dataset(dataset)["backbones"]:
            return None
        no_choice = spec.get("selection") == "val_best" and not self.has_val(dataset)
        if no_choice or dataset not in spec.get("datasets", [dataset]):
            return None
        quoted = spec["row"] in self.config["quote"].get(table, ())
        method = None if quoted else spec.get("method")
        paper = self._paper(table, spec, dataset)
        if method is None and not paper:
            return None
        recipe, protocol = spec.get("recipe", "released"), spec.get("protocol", "unified")
        where = f"{self.folder}/tables/{table}.yaml: row {spec['row']}"
        run = None
        if method is not None:
            run = self.resolve(
                dataset, method, backbone, spec.get("set", {}), recipe, where, protocol
            )
        return Row(
            table=table,
            row=spec["row"],
            label=spec["label"],
            dataset=dataset,
            run=run,
            post=spec.get("post", "none"),
            selection=spec.get("selection", "last"),
            recipe=recipe,
            protocol=protocol,
            backbone=self.dataset(dataset)["backbones"][backbone],
            params_paper=spec.get("params") if dataset in self.tables[table]["prints"] else None,
            paper=paper,
            footnotes=tuple(spec.get("footnotes", ())),
            implementation=self.methods[method]["implementation"] if method else None,
            selected_on=self._selected_on(dataset, method, protocol) if method else None,
        )

    def _selected_on(self, dataset: str, method: str, protocol: str) -> str | None:
        """The split that chose the method's learning rate, if that was chosen at all."""
        own = self.dataset(dataset).get("selected_on", {}).get(method)
        found: str | None = self.methods[method]["protocols"][protocol].get("selected_on")
        return own or found

    def _paper(self, table: str, spec: Mapping[str, Any], dataset: str) -> dict[str, Any]:
        """Printed numbers as direction → metric → number, without cells that are not printed."""
        printed = spec.get("paper", {}).get(dataset, {})
        metrics = self.tables[table]["metrics"]
        paper = {}
        for direction, numbers in printed.items():
            if len(numbers) != len(metrics):
                raise UserError(
                    f"{self.folder}/tables/{table}.yaml: row {spec['row']}: {direction} has "
                    f"{len(numbers)} numbers, metrics are {metrics}"
                )
            pairs = zip(metrics, numbers, strict=True)
            paper[direction] = {m: n for m, n in pairs if n is not None}
        return paper

    def _points(self, dataset: str, figure: str) -> list[Row]:
        spec = self.figures[figure]
        if PAPER_BACKBONE not in self.dataset(dataset)["backbones"]:
            return []
        grid = spec.get("grids", {}).get(dataset, spec["grid"])
        parameter = spec["parameter"]
        rows = []
        for value in grid:
            where = f"{self.folder}/figures/{figure}.yaml: {parameter} = {value}"
            run = self.resolve(dataset, "discovla", PAPER_BACKBONE, {parameter: value}, where=where)
            rows.append(
                Row(
                    table=figure,
                    row=f"{parameter}-{value:g}".replace("_", "-"),
                    label=f"{spec['symbol']} = {value:g}",
                    dataset=dataset,
                    run=run,
                    backbone=run.settings.backbone,
                    value=float(value),
                )
            )
        return rows

    def grids(self) -> list[str]:
        """Methods with a grid of settings to choose from."""
        return [m for m, entry in self.methods.items() if "grid" in entry["protocols"]["unified"]]

    def grid(self, dataset: str, method: str) -> list[Row]:
        """The runs that a method's grid asks for, one per combination of its values.

        Raises:
            UserError: a method without a grid, or a dataset without a split to choose on.
        """
        own = self.dataset(dataset).get("grids", {}).get(method)
        if own is None and method not in self.grids():
            raise UserError(f"method {method!r} has no grid; those that have: {self.grids()}")
        if not self.has_val(dataset):
            raise UserError(
                f"{dataset} has no validation split, and to choose on its test split would be no "
                "choice. Choose on another dataset and set the value in config/methods.yaml"
            )
        values = own or self.methods[method]["protocols"]["unified"]["grid"]
        where = f"{self.folder}/methods.yaml: {method}.protocols.unified.grid"
        rows = []
        for chosen in itertools.product(*values.values()):
            changes = dict(zip(values, chosen, strict=True))
            run = self.resolve(dataset, method, PAPER_BACKBONE, changes, where=where)
            label = ", ".join(f"{name} = {value:g}" for name, value in changes.items())
            rows.append(Row(table=method, row=run.run_id, label=label, dataset=dataset, run=run))
        return rows

    def targets(self, dataset: str) -> list[str]:
        """Tables and figures the paper prints for this dataset; all where it prints none."""
        return self.printed(dataset) or sorted([*self.tables, *self.figures])

    def printed(self, dataset: str) -> list[str]:
        """Tables and figures that the paper prints for this dataset."""
        specs = {**self.tables, **self.figures}
        return sorted(name for name, spec in specs.items() if dataset in spec["prints"])

    def runs(self, dataset: str) -> dict[str, Run]:
        """Every run that a table, figure or grid of this dataset needs, once.

        A table with a row that does not resolve here is left out; who asks for it is told why.
        """
        if dataset not in self._runs:  # Snakemake asks once per job
            sources = [
                functools.partial(self.rows, dataset, t) for t in (*self.tables, *self.figures)
            ]
            sources += [functools.partial(self.grid, dataset, method) for method in self.methods]
            found: dict[str, Run] = {}
            for rows in sources:
                with contextlib.suppress(UserError):
                    found |= {row.run.run_id: row.run for row in rows() if row.run is not None}
            self._runs[dataset] = found
        return self._runs[dataset]
