"""Files of Hugging Face repositories; the hub's library resumes, retries and checks by itself."""

from __future__ import annotations

import fnmatch
import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from discovla.data.download.part import require_space
from discovla.data.requirements import hub_is_offline
from discovla.errors import UserError
from discovla.storage.files import atomic_path, read_json

MODEL_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
"""What transformers reads of a model; pickles are left out."""


def fetch_one(hub: Mapping[str, Any], folder: Path, endpoint: str | None = None) -> Path:
    """Bring the one file of a repository that a source means.

    Args:
        hub: `repository`, the `kinds` it may be, `match`, `file` (or None) and the name to `save`.
        folder: where it goes.
        endpoint: address of the hub; None = the usual one.

    Returns:
        The file's path.

    Raises:
        UserError: offline, no such repository, or none or several files that match.
    """
    from huggingface_hub import hf_hub_download

    repository = hub["repository"]
    _require_network(f"{repository}: the file {hub['match']}")
    kind, names = _files_of(repository, hub["kinds"], endpoint)
    name = hub["file"] or _only(names, hub["match"], repository)
    cached = _asked(
        repository,
        lambda: hf_hub_download(repository, name, repo_type=kind, endpoint=endpoint),
    )
    content = read_json(cached)
    if not isinstance(content, dict) or not content:
        raise UserError(
            f"{repository}: {name} is not the file that is expected: an object of "
            "{key: [captions]}. Name another `file` in config/sources.yaml."
        )
    target = folder / hub["save"]
    require_space(_existing(folder), Path(cached).stat().st_size, str(target))
    with atomic_path(target) as temporary:
        shutil.copyfile(cached, temporary)
    return target


def fetch_model(
    entry: Mapping[str, Any], folder: Path | None = None, endpoint: str | None = None
) -> Path:
    """Bring a whole model, without pickles.

    Args:
        entry: `model` and `revision` of config/captioners.yaml.
        folder: where it goes; None = the hub's cache, where transformers finds it by itself.
        endpoint: address of the hub; None = the usual one.

    Returns:
        The folder with its files.

    Raises:
        UserError: offline, no such model, or the disk has not enough room.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    model = entry["model"]
    if (Path(model) / "config.json").is_file():
        return Path(model)
    _require_network(f"{model}: the model")
    options: dict[str, Any] = {
        "revision": entry["revision"],
        "allow_patterns": MODEL_FILES,
        "local_dir": folder,
        "endpoint": endpoint,
    }
    plan = _asked(model, lambda: snapshot_download(model, dry_run=True, **options))
    needed = sum(file.file_size or 0 for file in plan if file.will_download)
    require_space(_existing(folder or Path(HF_HUB_CACHE)), needed, model)
    place = Path(_asked(model, lambda: snapshot_download(model, **options)))
    for file in plan:  # without a network the library would hand out what happens to be there
        path = place / file.filename
        if not path.is_file() or file.file_size not in (None, path.stat().st_size):
            raise UserError(f"{model}: {file.filename} did not come whole. Run the command again.")
    return place


def _require_network(what: str) -> None:
    if hub_is_offline():
        raise UserError(f"{what} cannot be fetched while HF_HUB_OFFLINE is set; unset it.")


def _files_of(repository: str, kinds: list[str], endpoint: str | None) -> tuple[str, list[str]]:
    """The kind that the repository turns out to be, and the names of its files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi(endpoint=endpoint)
    for kind in kinds:
        ask = functools.partial(api.repo_info, repository, repo_type=kind)
        try:
            found = _asked(repository, ask, RepositoryNotFoundError)
        except RepositoryNotFoundError:
            continue
        return kind, [file.rfilename for file in found.siblings or ()]
    raise UserError(f"{repository}: Hugging Face has no public {' or '.join(kinds)} of this name.")


def _only(names: list[str], match: str, repository: str) -> str:
    fitting = [name for name in names if fnmatch.fnmatchcase(name, match)]
    if len(fitting) == 1:
        return fitting[0]
    raise UserError(
        f"{repository}: {len(fitting)} files match {match!r}; it has {sorted(names)}. Name the "
        "right one as hub: file: in config/sources.yaml."
    )


def _asked(repository: str, call: Callable[[], Any], *known: type[Exception]) -> Any:
    """The answer of the hub; every failure but the `known` ones becomes a `UserError`."""
    try:
        return call()
    except known:
        raise
    except Exception as problem:  # the hub raises many kinds, of three libraries
        text = (str(problem).strip().splitlines() or [""])[0] or type(problem).__name__
        raise UserError(
            f"{repository}: Hugging Face does not give it ({text}). Without a network: run "
            f"'hf download {repository}' where there is one and copy the files."
        ) from None


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists: disks are asked there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
