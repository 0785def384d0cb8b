"""One process per GPU: each takes a card of its own where several are visible.

A card is held by a lock on a file of this machine. The system lets go of it when the process ends,
however that happens, so that nothing is left behind. Where a cluster shows each job its own card
only, that one is taken.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

_held: dict[str, IO[bytes]] = {}


def take_card(cards: Sequence[str], folder: Path | None = None) -> int | None:
    """Take the first card that no other process has taken; it is held until this process ends.

    Args:
        cards: names of the visible cards that are the same in every process, such as their UUIDs.
        folder: of the locks; None = one of this user for all processes on this machine.

    Returns:
        Its place in `cards`, the same one if this process has taken one before; None if all are
        taken, or locks cannot be used here.
    """
    for place, card in enumerate(cards):
        if card in _held:
            return place
    folder = folder or Path(tempfile.gettempdir()) / f"discovla-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place, card in enumerate(cards):
            if _lock(folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', card)}.lock", card):
                return place
    except OSError as error:
        log.warning("%s: no locks can be kept there (%s)", folder, error)
    return None


def _lock(path: Path, card: str) -> bool:
    handle = path.open("ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return False
    _held[card] = handle
    return True
