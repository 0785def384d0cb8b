"""Training curves: loss, its terms and the learning rate over the steps of a run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from discovla.errors import UserError
from discovla.report.page.media import drawn
from discovla.report.pictures import drawing

_POINTS = 150
"""Per line; longer curves are averaged over equal stretches."""
_STYLES = (("#0072b2", "-"), ("#d55e00", "--"), ("#009e73", "-."), ("#6e6e6e", ":"))
_TERMS = {"loss": "loss", "loss_vid": "video level", "loss_img": "image level", "loss_kl": "KL"}


def read_curve(path: Path) -> pd.DataFrame:
    """A curve.csv.

    Raises:
        UserError: damaged, or without steps and losses.
    """
    try:
        frame = pd.read_csv(path)
        return frame.astype({"step": int, "lr": float, "loss": float})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a training curve ({error}); remove it") from None


def curve_picture(curves: Mapping[str, pd.DataFrame]) -> str:
    """Losses and learning rate of one run as an SVG address, a line for each seed."""
    return drawn(partial(_draw, curves))


def described(curves: Mapping[str, pd.DataFrame]) -> str:
    """The same in words, for who does not see the picture."""
    parts = []
    for seed, curve in curves.items():
        first, last = curve.iloc[0], curve.iloc[-1]
        parts.append(
            f"seed {seed}: loss {first['loss']:.3g} at step {int(first['step'])}, "
            f"{last['loss']:.3g} at step {int(last['step'])}"
        )
    return "; ".join(parts)


def shortened(frame: pd.DataFrame, points: int = _POINTS) -> pd.DataFrame:
    """Means over at most `points` stretches of equal length; short curves stay as they are."""
    if len(frame) <= points:
        return frame
    which = np.arange(len(frame)) * points // len(frame)
    return frame.groupby(which).mean()


def _draw(curves: Mapping[str, pd.DataFrame], path: Path) -> None:
    with drawing(path, (4.8, 2.0)) as figure:
        losses, rate = figure.subplots(1, 2, width_ratios=[3, 2])
        for number, frame in enumerate(curves.values()):
            curve = shortened(frame)
            terms = [name for name in curve if name == "loss" or name.startswith("loss_")]
            if len(terms) == 2:  # the only term is the loss itself
                terms = ["loss"]
            for name, (colour, line) in zip(terms, _STYLES, strict=False):
                label = _TERMS.get(name, name) if number == 0 else None
                style: dict[str, Any] = {"color": colour, "linestyle": line, "linewidth": 1.1}
                losses.plot(curve["step"], curve[name], label=label, alpha=0.8, **style)
            rate.plot(curve["step"], curve["lr"], color="#0072b2", linewidth=1.1)
        if len(losses.get_legend_handles_labels()[0]) > 1:
            losses.legend(fontsize=7, frameon=False)
        losses.set_title("loss", fontsize=8, loc="left")
        rate.set_title("learning rate", fontsize=8, loc="left")
        rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        for panel in (losses, rate):
            panel.tick_params(labelsize=7)
            panel.yaxis.get_offset_text().set_fontsize(7)
            panel.set_ylim(bottom=0)
            panel.locator_params(nbins=4)
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_xlabel("step", fontsize=7)
