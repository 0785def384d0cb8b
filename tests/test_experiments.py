"""Tables → rows → runs: what is shared, what is planned, what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovla.config import load_yaml
from discovla.errors import UserError
from discovla.experiments import Experiments

DATASETS = ("msrvtt", "lsmdc", "activitynet", "didemo", "demo")
REPAIR = (
    "If that is meant, run 'python -m tests.test_experiments' and commit the change: it is the "
    "list of trainings that the change invalidates."
)


@pytest.fixture(scope="module")
def experiments() -> Experiments:
    return Experiments.load()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree("config", tmp_path / "config")
    return tmp_path / "config"


def change(path: Path, edit: Any) -> None:
    content = yaml.safe_load(path.read_text())
    edit(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def all_run_ids(experiments: Experiments) -> dict[str, dict[str, str]]:
    tables = [*experiments.tables, *experiments.figures]
    return {
        dataset: {
            f"{name}/{row.row}": row.run.run_id
            for name in tables
            for row in experiments.rows(dataset, name)
            if row.run is not None
        }
        for dataset in DATASETS
    }


def distinct_trainings(experiments: Experiments) -> dict[str, int]:
    """How many trainings each target plans with nothing done yet, one seed."""
    plan = {}
    for dataset in DATASETS:
        for name in experiments.targets(dataset):
            rows = experiments.rows(dataset, name)
            runs = {row.run.run_id for row in rows if row.run and row.run.trains}
            plan[f"results/{dataset}/{name}.csv"] = len(runs)
    return plan


def golden(name: str, value: Any) -> None:
    path = Path("tests/golden") / name
    assert json.loads(path.read_text()) == value, f"{path} differs. {REPAIR}"


def test_table_8_never_mixes_generators(experiments: Experiments, folder: Path) -> None:
    """Also where a dataset trains on the authors' captions: only the prompt differs."""
    change(folder / "datasets" / "msrvtt.yaml", lambda c: c["set"].update(captions="released"))
    rows = Experiments.load(folder=folder).rows("msrvtt", "table8")
    assert [row.run.settings.captions for row in rows if row.run] == ["guided", "unguided"]
    assert len({row.run.settings.captioner for row in rows if row.run}) == 1
    assert [row.run.captions_id for row in rows if row.run] == [
        row.run.captions_id for row in experiments.rows("msrvtt", "table8") if row.run
    ]


def test_run_ids_are_those_of_the_golden_file(experiments: Experiments) -> None:
    golden("run_ids.json", all_run_ids(experiments))


def test_distinct_trainings_are_those_of_the_golden_file(experiments: Experiments) -> None:
    golden("trainings.json", distinct_trainings(experiments))


def test_the_papers_tables_need_43_trainings_and_its_figures_fourteen_more(
    experiments: Experiments,
) -> None:
    tables, everything = set(), set()
    for dataset in DATASETS[:4]:
        for name in experiments.targets(dataset):
            for row in experiments.rows(dataset, name):
                if row.run and row.run.trains:
                    key = (dataset, row.run.run_id)
                    everything.add(key)
                    if name in experiments.tables:
                        tables.add(key)
    assert len(tables) == 43
    assert len(everything) == 57


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("table5", "lora"), ("table6", "image")),
        (("table5", "lora"), ("table1", "lora-b32")),
        (("table5", "b1"), ("table6", "ivfusion")),
        (("table5", "b3"), ("table7", "none")),
        (("table5", "discovla"), ("table7", "fine")),
        (("table5", "discovla"), ("table8", "guided")),
        (("table5", "discovla"), ("table9", "dsl")),
        (("table5", "discovla"), ("figure6", "alpha-0.3")),
        (("table5", "b2"), ("figure7", "beta-0")),
    ],
)
def test_rows_that_are_the_same_training_share_it(
    experiments: Experiments, one: tuple[str, str], other: tuple[str, str]
) -> None:
    first, second = (experiments.row("msrvtt", *name).run for name in (one, other))
    assert first is not None
    assert second is not None
    assert first.run_id == second.run_id


def test_rows_without_image_losses_wait_for_no_captions(experiments: Experiments) -> None:
    for row in ("lora", "b1"):
        run = experiments.row("msrvtt", "table5", row).run
        assert run is not None
        assert run.captions_id is None
    for row in ("b2", "b3", "discovla"):
        run = experiments.row("msrvtt", "table5", row).run
        assert run is not None
        assert run.captions_id


def test_guided_and_unguided_captions_differ_in_id(experiments: Experiments) -> None:
    guided = experiments.row("msrvtt", "table8", "guided").run
    unguided = experiments.row("msrvtt", "table8", "unguided").run
    assert guided is not None
    assert unguided is not None
    assert guided.captions_id != unguided.captions_id
    assert guided.frames_id == unguided.frames_id
    # One generator for both, or the table would compare generators.
    assert guided.settings.captioner == unguided.settings.captioner
    assert (guided.settings.captions, unguided.settings.captions) == ("guided", "unguided")
    assert guided.run_id != unguided.run_id


def test_paths_and_machine_do_not_enter_the_ids(experiments: Experiments, folder: Path) -> None:
    config = {**load_yaml(folder / "config.yaml"), "device": "cpu", "workers": 0, "seeds": [7]}
    config["weights"] = {"vit-b32": "/elsewhere/ViT-B-32.pt"}
    config["captioner_path"] = {"llava-next": "/elsewhere/llava"}
    moved = Experiments.load(config, folder)
    assert all_run_ids(moved) == all_run_ids(experiments)
    assert moved.row("msrvtt", "table5", "b1").run.backbone["weights"] == "/elsewhere/ViT-B-32.pt"


def test_a_new_behaviour_at_its_default_changes_no_id(experiments: Experiments) -> None:
    run = experiments.row("msrvtt", "table5", "discovla").run
    assert run is not None
    spelled_out = {
        field.name: field.default
        for field in dataclasses.fields(run.settings)
        if field.default is not dataclasses.MISSING
    }
    again = experiments.resolve("msrvtt", "discovla", "vit-b32", spelled_out)
    assert again.run_id == run.run_id


def test_annotation_rules_change_every_id_below_them(
    experiments: Experiments, folder: Path
) -> None:
    change(
        folder / "datasets" / "activitynet.yaml",
        lambda content: content["rules"].update(paragraph_order="time"),
    )
    before = experiments.row("activitynet", "table9", "discovla").run
    after = Experiments.load(folder=folder).row("activitynet", "table9", "discovla").run
    assert before is not None
    assert after is not None
    assert before.frames_id != after.frames_id
    assert before.run_id != after.run_id


def test_a_row_can_be_quoted_instead_of_trained(folder: Path) -> None:
    config = {**load_yaml(folder / "config.yaml"), "quote": {"table1": ["full-b32"]}}
    row = Experiments.load(config, folder).row("msrvtt", "table1", "full-b32")
    assert row.run is None
    assert row.paper["t2v"]["R@1"] == 43.1


def test_every_row_of_tables_1_to_4_is_trained(experiments: Experiments) -> None:
    tables = {"msrvtt": "table1", "lsmdc": "table2", "activitynet": "table3", "didemo": "table4"}
    for dataset, table in tables.items():
        rows = experiments.rows(dataset, table)
        assert all(row.run is not None and row.run.trains for row in rows)
        assert all(row.implementation and row.selected_on for row in rows)


def test_protocols_differ_in_what_they_say(experiments: Experiments) -> None:
    own = experiments.row("activitynet", "variants", "dgl-published").run
    unified = experiments.row("activitynet", "table3", "dgl").run
    assert own is not None
    assert unified is not None
    assert (own.settings.frames, own.settings.words, own.settings.epochs) == (64, 64, 10)
    assert (unified.settings.frames, unified.settings.epochs) == (32, 5)
    with pytest.raises(UserError, match=r"lora has no protocol 'published'; known: \['unified'\]"):
        experiments.resolve("msrvtt", "lora", "vit-b32", {}, protocol="published")


def test_a_grid_is_chosen_on_a_validation_split_only(experiments: Experiments) -> None:
    rates = {row.run.settings.lr for row in experiments.grid("demo", "prompt") if row.run}
    assert rates == {1e-3, 3e-3, 1e-2, 3e-2}
    with pytest.raises(UserError, match=r"msrvtt has no validation split"):
        experiments.grid("msrvtt", "prompt")
    with pytest.raises(UserError, match=r"'zero_shot' has no grid; those that have: .*prompt"):
        experiments.grid("demo", "zero_shot")


def test_the_choice_of_a_checkpoint_is_no_other_training(experiments: Experiments) -> None:
    rows = {row.row: row for row in experiments.rows("demo", "selection")}
    assert len({row.run.run_id for row in rows.values() if row.run}) == 1
    names = {name: experiments.metrics_files(row)[0] for name, row in rows.items()}
    assert [Path(path).name for path in names.values()] == [
        "metrics.none.json",
        "metrics.none.val_best.json",
        "metrics.none.test_best.json",
    ]
    assert [row.row for row in experiments.rows("msrvtt", "selection")] == ["last", "test-best"]


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        ("lora", {"selection": "test_best"}, "must not stand beside the paper's number"),
        ("zero-shot", {"selection": "val_best"}, "zero_shot trains nothing to choose from"),
        ("b1", {"selection": "val_best", "post": "qbnorm"}, "the bank of qbnorm"),
        ("b1", {"selection": "best"}, "'best' is not one of"),
    ],
)
def test_a_choice_that_cannot_or_must_not_be_is_refused(
    folder: Path, row: str, changes: dict[str, str], message: str
) -> None:
    def edit(content: dict[str, Any]) -> None:
        next(line for line in content["rows"] if line["row"] == row).update(changes)

    change(folder / "tables" / "table5.yaml", edit)
    with pytest.raises(UserError, match=message):
        Experiments.load(folder=folder)


def test_quoting_an_unknown_row_is_an_error(folder: Path) -> None:
    config = {**load_yaml(folder / "config.yaml"), "quote": {"table1": ["fulll"]}}
    with pytest.raises(UserError, match=r"quote.table1: no such rows: \['fulll'\]; known: .*full"):
        Experiments.load(config, folder)


def test_a_row_that_stands_twice_is_refused(folder: Path) -> None:
    change(
        folder / "tables" / "table5.yaml",
        lambda content: content["rows"].append(content["rows"][0]),
    )
    with pytest.raises(UserError, match=r"table5.yaml: rows \['zero-shot'\] stand there twice"):
        Experiments.load(folder=folder)


def test_unknown_names_list_the_known_ones(experiments: Experiments) -> None:
    with pytest.raises(UserError, match=r"no dataset 'msrvt'; known: .*msrvtt"):
        experiments.rows("msrvt", "table1")
    with pytest.raises(UserError, match=r"no table or figure 'table44'; known: .*table4"):
        experiments.rows("msrvtt", "table44")
    with pytest.raises(UserError, match=r"no row 'b9'; known: .*b1"):
        experiments.row("msrvtt", "table5", "b9")


def test_unknown_setting_in_a_row_names_file_and_row(folder: Path) -> None:
    change(
        folder / "tables" / "table5.yaml",
        lambda content: content["rows"][-1].setdefault("set", {}).update(alhpa=1),
    )
    broken = Experiments.load(folder=folder)
    with pytest.raises(UserError, match=r"tables/table5.yaml: row .*: 'alhpa' is not a known"):
        broken.rows("msrvtt", "table5")


def test_unknown_key_in_the_config_names_file_and_key(folder: Path) -> None:
    config = {**load_yaml(folder / "config.yaml"), "seed": 1}
    with pytest.raises(UserError, match=r"config.yaml: .*'seed' was unexpected.*Known: .*seeds"):
        Experiments.load(config, folder)


def test_a_key_given_twice_is_an_error(folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text() + "\nworkers: 3\n")
    with pytest.raises(UserError, match=r"config.yaml, line \d+: 'workers' is given twice"):
        Experiments.load(folder=folder)


def test_the_demo_shows_only_rows_that_can_be_measured(experiments: Experiments) -> None:
    rows = experiments.rows("demo", "table1")
    assert rows
    assert all(row.run is not None and not row.paper for row in rows)
    assert {row.backbone for row in rows} == {"demo-clip"}


if __name__ == "__main__":
    found = Experiments.load()
    for name, value in (
        ("run_ids.json", all_run_ids(found)),
        ("trainings.json", distinct_trainings(found)),
    ):
        Path("tests/golden", name).write_text(json.dumps(value, indent=1) + "\n")
