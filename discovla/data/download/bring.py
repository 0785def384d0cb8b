"""Bringing a source: what is missing of it, way after way, until all of it is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from discovla.data.download.check import check_file, is_right
from discovla.data.download.hub import fetch_model, fetch_one
from discovla.data.download.part import Part, disk_errors
from discovla.data.download.sources import Archive, Each, Published, Refused, Source
from discovla.data.download.transfer import Policy, receive
from discovla.data.download.unpack import unpack
from discovla.data.requirements import captioner_weights
from discovla.errors import UserError
from discovla.storage.files import read_json, write_json

NOT_PUBLISHED = "not published, recorded"


@dataclass(frozen=True)
class State:
    """What is there of a source."""

    present: tuple[str, ...]
    missing: tuple[str, ...]
    other: tuple[str, ...] = ()
    """Present, but not the published bytes; perhaps the user's own choice, so never replaced."""

    @property
    def word(self) -> str:
        """`present`, `partly` or `absent`."""
        if not self.missing:
            return "present"
        return "partly" if self.present else "absent"


def look(source: Source, folder: Path, captioner: Mapping[str, Any] | None = None) -> State:
    """What is there of a source in `folder`, or of its model in the hub's cache."""
    if captioner is not None:
        found = captioner_weights(source.name, captioner)
        parts: tuple[str, ...] = (found.source,)
        return State(parts, ()) if found.status == "present" else State((), parts)
    if source.many:
        names = {path.name for path in folder.rglob(source.many.match) if path.is_file()}
        lacking = source.many.count - len(names)
        return State(
            (f"{len(names):,} files",) if names else (),
            (f"{lacking:,} files",) if lacking > 0 else (),
        )
    files = dict(source.files)
    if source.hub:
        files[source.hub["save"]] = Published()
    here = [name for name in files if (folder / name).is_file()]
    return State(
        tuple(here),
        tuple(name for name in files if name not in here),
        tuple(name for name in here if not is_right(folder / name, files[name])),
    )


def bring(
    source: Source,
    folder: Path,
    *,
    policy: Policy | None = None,
    endpoint: str | None = None,
) -> State:
    """Fetch what is missing of a source of files; captioners are `bring_model`'s.

    Args:
        source: what to bring.
        folder: where it goes.
        policy: how patient downloads are.
        endpoint: address of the Hugging Face hub; None = the usual one.

    Returns:
        What is there now: everything.

    Raises:
        UserError: no way gave it; the text says why each failed and what to do by hand.
    """
    state = look(source, folder)
    if not source.ways and not source.hub:
        raise UserError(_by_hand(source, folder, state, []))
    if not state.missing:
        return state
    problems: list[str] = []
    with disk_errors(folder):
        if source.hub:
            try:
                fetch_one(source.hub, folder, endpoint)
            except UserError as problem:
                problems.append(str(problem))
        for way in source.ways:
            problems += _try(way, source, folder, policy or Policy())
            if not look(source, folder).missing:
                break
    state = look(source, folder)
    if not state.missing:
        return state
    raise UserError(_by_hand(source, folder, state, problems))


def bring_model(entry: Mapping[str, Any], folder: Path | None, endpoint: str | None = None) -> Path:
    """Fetch a captioner into `folder`, or into the hub's cache; returns where it is."""
    with disk_errors(folder or Path()):
        return fetch_model(entry, folder, endpoint)


def _try(way: Archive | Each, source: Source, folder: Path, policy: Policy) -> list[str]:
    """Try one way; the reasons why it did not give something."""
    if isinstance(way, Archive):
        return _try_archive(way, source, folder, policy)
    problems = []
    for name in look(source, folder).missing:
        published = source.files[name]
        url = way.url(name, published)
        try:
            download(url, folder / name, published, largest=source.largest, policy=policy)
        except Refused as problem:
            problems.append(f"{url}: {problem}")
    return problems


def _try_archive(way: Archive, source: Source, folder: Path, policy: Policy) -> list[str]:
    archive = folder / way.name
    try:
        if not archive.exists():
            download(way.url, archive, way.published, largest=source.largest, policy=policy)
    except Refused as problem:
        return [f"{way.url}: {problem}"]
    try:
        unpack(archive, source, folder)
    except Refused as problem:
        return [f"{archive} (of {way.url}): {problem}. Remove it to fetch it again"]
    if _record_of(archive).exists():  # an archive that was brought by hand stays
        archive.unlink()
    return []


def download(url: str, target: Path, published: Published, *, largest: int, policy: Policy) -> None:
    """Fetch one file, check it, give it its name, and write down where it came from.

    Args:
        url: its address.
        target: where it goes.
        published: what is published of it; without a checksum it must be what was recorded at its
            first download, if there was one.
        largest: bytes after which an answer is given up.
        policy: patience.

    Raises:
        Refused: this address does not give the file.
    """
    part = Part(target)
    spare = 2 if target.suffix == ".zip" else 1  # what is unpacked of it needs room, too
    with part.locked():
        receive(url, part, size=published.size, largest=largest, policy=policy, spare=spare)
        try:
            sha256 = check_file(part.path, target.name, published)
            _compare_with_record(target, published, sha256)
        except Refused:
            part.discard()
            raise
        size = part.size
        part.finish()
    write_json(
        _record_of(target),
        {
            "url": url,
            "bytes": size,
            "sha256": sha256,
            "checksum": "published" if published.has_checksum else NOT_PUBLISHED,
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def _record_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.origin.json")


def _compare_with_record(target: Path, published: Published, sha256: str) -> None:
    record = _record_of(target)
    if published.has_checksum or not record.exists():
        return
    before = read_json(record)
    if before.get("sha256") != sha256:
        raise Refused(
            f"{target.name} is not the file of {before.get('fetched')}: sha256 {sha256}, then "
            f"{before.get('sha256')}. If the change is right, remove {record}"
        )


def _by_hand(source: Source, folder: Path, state: State, problems: list[str]) -> str:
    """Why it could not be fetched, what to bring by hand, from where and to where."""
    lines = [f"{source.name} cannot be fetched ({source.what}).", *(f"  {p}" for p in problems)]
    if source.ways:
        lines.append(f"By hand, where there is a network, one of (into {folder}):")
    for way in source.ways:
        if isinstance(way, Archive):
            lines.append(f"  {way.url}  ->  {folder / way.name} (will be unpacked)")
        else:
            lines += [
                f"  {way.url(name, source.files[name])}  ->  {folder / name}"
                for name in state.missing
            ]
    if source.hub:
        lines.append(
            f"By hand: a file of {source.hub['repository']} on Hugging Face  ->  "
            f"{folder / source.hub['save']}"
        )
    if source.manual:
        lines.append(source.manual)
    if not source.ways and not source.hub:
        lines.append(f"The folder is {folder}. Terms: {source.terms}.")
    else:
        lines.append("Then run the same command again: what is there is not fetched twice.")
    return "\n".join(lines)
