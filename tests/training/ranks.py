"""Processes that torchrun would start, forked from one that has imported torch already."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from discovla.cli import main
from discovla.training.gradients import backward
from discovla.training.processes import ALONE, World, joined
from tests.models import tiny

BATCH = 16


def batch(size: int = BATCH) -> dict[str, Tensor]:
    """A global batch in which two videos come twice and one has a frame that does not count."""
    made = tiny.batch(size, length=8)
    made["video_index"][7] = made["video_index"][12]
    made["video_mask"][5, 2] = False
    return made


def gradients(
    settings: dict[str, Any], micro_batch: int | None, size: int = BATCH, world: World = ALONE
) -> dict[str, Tensor]:
    """Loss terms, and gradients by name, of the global batch, of which a process has its share."""
    model = tiny.model(**settings)
    own = {name: tensor[world.share(size)] for name, tensor in batch(size).items()}
    terms, _ = backward(model, own, "fp32", micro_batch=micro_batch, world=world, seed=5)
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {name: tensor.clone() for name, tensor in {**terms, **grads}.items()}


def save_gradients(folder: Path, cases: list[tuple[dict[str, Any], int | None, int]]) -> None:
    """Gradients of every case as this process has them, `{case}.{rank}.safetensors`."""
    with joined("cpu") as world:
        for number, (settings, micro_batch, size) in enumerate(cases):
            found = gradients(settings, micro_batch, size, world)
            save_file(found, folder / f"{number}.{world.rank}.safetensors")


def command(arguments: list[str], logs: Path) -> None:
    """`discovla …`, what it says going to `{logs}.{rank}`."""
    os.dup2(os.open(f"{logs}.{os.environ['RANK']}", os.O_WRONLY | os.O_CREAT), 2)
    sys.exit(main(arguments))


def start(size: int, function: Callable[..., None], *arguments: Any) -> list[ForkServerProcess]:
    """Call `function` in `size` processes, with the variables that torchrun would set."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(size):
        world = {"WORLD_SIZE": size, "RANK": rank, "LOCAL_RANK": rank}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables = {name: str(value) for name, value in {**world, **address}.items()}
        process = context.Process(target=_run, args=(variables, function, arguments))
        process.start()
        started.append(process)
    return started


def _run(
    variables: dict[str, str], function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)
    function(*arguments)
