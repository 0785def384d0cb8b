"""config/sources.yaml: what can be fetched, where it goes, what is published of it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from discovla.config import load_checked
from discovla.errors import UserError


class Refused(Exception):
    """This way does not give the file, and asking again would not help; others may."""


@dataclass(frozen=True)
class Published:
    """What is published of one file; None = nothing."""

    sha256: str | None = None
    git_blob: str | None = None
    """Its name in a git repository: sha1 of a header with the size, and the content."""
    size: int | None = None
    """Bytes."""

    @property
    def has_checksum(self) -> bool:
        """Whether the content can be told from any other."""
        return bool(self.sha256 or self.git_blob)


@dataclass(frozen=True)
class Many:
    """Files too many to list: those of an archive that match."""

    match: str
    count: int
    into: str
    """A folder below the source's."""


@dataclass(frozen=True)
class Archive:
    """A zip that holds all files of a source."""

    url: str
    published: Published

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Each:
    """An address with {name} and {sha256} for every file."""

    template: str

    def url(self, name: str, published: Published) -> str:
        """The address of one file."""
        return self.template.format(name=name, sha256=published.sha256)


@dataclass(frozen=True)
class Source:
    """One thing to fetch."""

    name: str
    what: str
    terms: str
    dataset: str | None = None
    folder: str | None = None
    files: Mapping[str, Published] = field(default_factory=dict)
    many: Many | None = None
    ways: tuple[Archive | Each, ...] = ()
    largest: int = 0
    hub: Mapping[str, Any] | None = None
    captioner: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    manual: str = ""

    def place_of(self, name: str) -> str | None:
        """Where a file of an archive goes, below the source's folder; None = not wanted."""
        if name in self.files:
            return name
        if self.many and fnmatch.fnmatchcase(name, self.many.match):
            return f"{self.many.into}/{name}"
        return None


def load_sources(config_dir: str | Path = "config") -> dict[str, Source]:
    """All sources by name; `UserError` if the file is not as its schema says."""
    path = Path(config_dir) / "sources.yaml"
    return {name: _source(name, entry) for name, entry in load_checked(path, "sources").items()}


def choose(sources: Mapping[str, Source], names: list[str]) -> list[Source]:
    """The named sources, each once; `UserError` lists the known ones."""
    unknown = [name for name in names if name not in sources]
    if unknown:
        raise UserError(f"no source {', '.join(unknown)}; known: {', '.join(sources)}")
    return [sources[name] for name in dict.fromkeys(names)]


def _source(name: str, entry: Mapping[str, Any]) -> Source:
    parts: dict[str, Any] = dict(entry)
    parts["files"] = {file: Published(**known) for file, known in entry.get("files", {}).items()}
    parts["many"] = Many(**entry["many"]) if "many" in entry else None
    parts["ways"] = tuple(_way(way) for way in entry.get("ways", ()))
    return Source(name=name, **parts)


def _way(way: Mapping[str, Any]) -> Archive | Each:
    if "each" in way:
        return Each(way["each"])
    known = {key: value for key, value in way.items() if key != "archive"}
    return Archive(way["archive"], Published(**known))
