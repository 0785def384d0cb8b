"""The tiny models that come with the package, and the papers that go with them."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from pathlib import Path

from discovla.errors import UserError
from discovla.storage.files import atomic_write, sha256_file

WEIGHTS = Path(__file__).parent / "weights"
CLIP = WEIGHTS / "clip"
LLAVA = WEIGHTS / "llava"
README = "README.md"
LOG = "training_log.json"
CONTENTS = {"clip", "llava", README, LOG}

_TEXT = """# Weights of the demo's tiny models

- `clip/`: an open_clip CLIP with {clip} parameters (float16), its configuration and BPE file.
- `llava/`: a transformers LLaVA-NeXT with {llava} parameters (float16) and its processor.

Licence: MIT, as the rest of this project, which trained them on images it rendered itself; no
outside data or weights went in. `training_log.json` has loss curves, accuracies, versions and time.

Regenerate (one thread; these took {minutes:.0f} CPU minutes on a shared machine, a quiet one needs
less; the last digits depend on processor and versions):

```
discovla demo-pretrain --output DIR
```

| file | bytes | sha256 |
|---|---|---|
{rows}
"""
_ROW = re.compile(r"^\| `(?P<file>[^`]+)` \| \d+ \| `(?P<sha256>[0-9a-f]{64})` \|$", re.M)


def write_readme(
    folder: Path, *, clip_parameters: int, llava_parameters: int, cpu_seconds: float
) -> None:
    """Write `README.md` with origin, licence and the sha256 of every other file in `folder`."""
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / README
    }
    rows = [
        f"| `{name}` | {path.stat().st_size} | `{sha256_file(path)}` |"
        for name, path in files.items()
    ]
    with atomic_write(folder / README) as handle:
        handle.write(
            _TEXT.format(
                clip=f"{clip_parameters:,}",
                llava=f"{llava_parameters:,}",
                minutes=cpu_seconds / 60,
                rows="\n".join(rows),
            )
        )


def listed_files(folder: Path = WEIGHTS) -> dict[str, str]:
    """Relative path to sha256, as `README.md` lists them."""
    text = (folder / README).read_text(encoding="utf-8")
    return {match["file"]: match["sha256"] for match in _ROW.finditer(text)}


def verify_weights(folder: Path = WEIGHTS) -> None:
    """Check that every listed file is there and unchanged.

    Raises:
        UserError: naming the first file that is absent or differs.
    """
    for name, expected in listed_files(folder).items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != expected:
            raise UserError(
                f"{path}: absent, or not the file that {folder / README} lists. "
                "Restore it ('git checkout' the folder) or run 'discovla demo-pretrain'."
            )


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the weights."""
    names = ("torch", "open_clip_torch", "transformers", "tokenizers", "numpy", "av")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }
