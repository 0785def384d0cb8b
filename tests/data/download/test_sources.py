"""config/sources.yaml fits the rest of the project and the real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from discovla.data.download.bring import look
from discovla.data.download.sources import (
    Archive,
    load_sources,
)
from discovla.experiments import Experiments


def test_the_sources_say_what_the_rest_of_the_project_needs(root: Path) -> None:
    sources = load_sources(root / "config")
    experiments = Experiments.load(folder=str(root / "config"))
    for source in sources.values():
        assert source.dataset is None or source.dataset in experiments.config["data"]
        assert source.ways or source.hub or source.captioner or source.manual
        for way in source.ways:
            urls = (
                [way.url]
                if isinstance(way, Archive)
                else [way.url(name, known) for name, known in source.files.items()]
            )
            assert all(url.startswith("https://") for url in urls)
            assert not any("None" in url or "{" in url for url in urls)
    weights = sources["clip_weights"]
    for name, file_name in weights.weights.items():
        assert weights.files[file_name].sha256 == experiments.backbones[name]["sha256"]


@pytest.mark.parametrize("dataset", ["msrvtt", "activitynet", "didemo"])
def test_the_annotation_sources_bring_what_the_readers_want(root: Path, dataset: str) -> None:
    from discovla.data.annotations import get_reader

    entry = Experiments.load(folder=str(root / "config")).dataset(dataset)
    reader = get_reader(entry["reader"])
    needed = reader.missing_files(root / "no such folder", reader.rules(entry["rules"]))
    assert set(needed) <= set(load_sources(root / "config")[f"{dataset}_annotations"].files)


def test_published_checksums_are_those_of_real_files(root: Path, shared) -> None:  # type: ignore[no-untyped-def]
    compared = 0
    for source in load_sources(root / "config").values():
        state = (
            look(source, shared(f"datasets/{source.dataset}"))
            if source.files and source.dataset
            else None
        )
        if state:
            assert state.other == ()
            compared += len(state.present)
    assert compared >= 7
