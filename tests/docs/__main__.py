"""Run the commands of the documentation that need the demo: `python -m tests.docs`.

Makes a folder as after `git clone`, runs the blocks marked "with make demo" and then those marked
"after the demo", page by page, and says how long each took. What is there is not made again: name
the same folder to go on.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.docs.pages import AFTER_DEMO, ROOT, WITH_DEMO, blocks, pages
from tests.docs.place import place, run_block


def main() -> int:
    """0 if every block ended well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "docs-commands")
    parser.add_argument("--page", action="append", help="only this page; may be given again")
    parser.add_argument("--skip-demo", action="store_true", help="the demo's results are there")
    args = parser.parse_args()
    if not (args.folder / "config").exists():
        place(args.folder)
    found = [block for page in pages() for block in blocks(page)]
    chosen = [block for block in found if not args.page or block.page in args.page]
    kinds = (AFTER_DEMO,) if args.skip_demo else (WITH_DEMO, AFTER_DEMO)
    failed = 0
    for block in (block for kind in kinds for block in chosen if block.when == kind):
        start = time.monotonic()
        ran = run_block(block, args.folder.resolve(), timeout=7200)
        seconds = time.monotonic() - start
        print(
            f"{'ok' if ran.returncode == 0 else 'FAILED':<7}{seconds:7.1f} s  {block}", flush=True
        )
        if ran.returncode:
            failed += 1
            print(f"{block.text}\n{ran.stdout[-3000:]}", file=sys.stderr)
    print(f"{failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
