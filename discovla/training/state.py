"""What a training needs to go on exactly where it was: one safetensors file, replaced atomically.

It holds the trained tensors, the optimiser's tensors, the curve and the number of steps done. No
random state is among it: order, augmentation and every draw follow from the seed and the step.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from discovla.errors import UserError
from discovla.provenance import code_version
from discovla.storage.tensors import read_tensors, save_tensors
from discovla.training.progress import Row

LOG = logging.getLogger(__name__)
STATE_FOLDER, STATE_NAME = "state", "state.safetensors"
_MODEL = "model"
_COUNTER = "step"
_CURVE = "curve"


@dataclass(frozen=True)
class Identity:
    """Whose training it is; a state is taken up only by the very same."""

    run_id: str
    seed: int
    data_id: str

    def to_dict(self) -> dict[str, str]:
        """As text, for the metadata of a file."""
        return {"run_id": self.run_id, "seed": str(self.seed), "data_id": self.data_id}


def save_state(
    folder: Path,
    identity: Identity,
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    rows: Sequence[Row] = (),
) -> None:
    """Write everything that training after `step` steps depends on; `rows` are of the curve."""
    columns = list(rows[0]) if rows else []
    curve = [[row[name] for name in columns] for row in rows]
    tensors = {_CURVE: torch.tensor(curve, dtype=torch.float64)}
    for name, parameter in parameters.items():
        parts = {_MODEL: parameter, **optimiser.state.get(parameter, {})}
        for kind, tensor in parts.items():
            tensors[f"{kind}/{name}"] = tensor.detach().cpu().contiguous()
    metadata = {**identity.to_dict(), "step": str(step), "columns": json.dumps(columns)}
    metadata["versions"] = json.dumps(code_version())
    save_tensors(folder / STATE_NAME, tensors, metadata)


def load_state(
    folder: Path,
    identity: Identity,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
) -> tuple[int, list[Row]]:
    """Put back what `save_state` wrote; return the steps done and the curve, none if no state.

    How many processes wrote it, and in what micro-batches, does not matter. Other code than that
    which began is told: the result is of both.

    Raises:
        UserError: the state is damaged, or belongs to another run, seed or data.
    """
    path = folder / STATE_NAME
    if not path.exists():
        return 0, []
    advice = f"Remove the folder {folder} to start this training anew."
    tensors, metadata = read_tensors(path, advice)
    for key, own in identity.to_dict().items():
        if metadata.get(key) != own:
            raise UserError(
                f"{path}: interrupted training of {key} {metadata.get(key)}, but this is {key} "
                f"{own}. Give another --output, or: {advice}"
            )
    if _CURVE not in tensors:
        raise UserError(f"{path}: written by an earlier version, without the curve. {advice}")
    curve, columns = tensors.pop(_CURVE).tolist(), json.loads(metadata["columns"])
    shapes = {
        key.removeprefix(f"{_MODEL}/"): tensor.shape
        for key, tensor in tensors.items()
        if key.startswith(f"{_MODEL}/")
    }
    own_shapes = {name: parameter.shape for name, parameter in parameters.items()}
    if odd := sorted(
        name
        for name in shapes.keys() | own_shapes.keys()
        if shapes.get(name) != own_shapes.get(name)
    ):
        raise UserError(
            f"{path}: {len(odd)} trained tensors are missing, unknown or of another shape, such as "
            f"{odd[0]!r}: other code began this training. {advice}"
        )
    _tell_other_code(path, metadata)
    with torch.no_grad():
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            _put_back(kind, tensor, parameters[name], optimiser)
    return int(metadata["step"]), [dict(zip(columns, row, strict=True)) for row in curve]


def _tell_other_code(path: Path, metadata: Mapping[str, str]) -> None:
    """Warn if code or libraries are not those that the training was begun with."""
    began, now = json.loads(metadata.get("versions", "{}")), code_version()
    if differing := [k for k in ("package_sha", "versions") if began and began[k] != now[k]]:
        LOG.warning(
            "%s: begun with other %s (%s; now %s); the result will be of both. For one version "
            "alone remove the folder %s first.",
            path,
            " and ".join("code" if k == "package_sha" else "libraries" for k in differing),
            *(_named(version) for version in (began, now)),
            path.parent,
        )


def _named(version: Mapping[str, Any]) -> str:
    code = version["commit"] or version["package_sha"]
    return f"{code[:12]}{'+' if version['dirty'] else ''}, torch {version['versions']['torch']}"


def _put_back(
    kind: str, tensor: Tensor, parameter: nn.Parameter, optimiser: torch.optim.Optimizer
) -> None:
    if kind == _MODEL:
        parameter.copy_(tensor)
    else:
        # AdamW keeps its moments beside the parameter, its step counter on the CPU unless fused.
        counts_here = kind == _COUNTER and not optimiser.defaults.get("fused")
        place = tensor.device if counts_here else parameter.device
        optimiser.state[parameter][kind] = tensor.to(place)


def remove_state(folder: Path) -> None:
    """Delete the state of a training that has ended."""
    shutil.rmtree(folder, ignore_errors=True)
