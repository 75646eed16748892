"""Does a change need a GPU? Its files, one by one, against the list in ``.github/gpu-critical-paths.txt``.

    python bench/ci/gpu_needed.py --checkout . --base main --head HEAD
    python bench/ci/gpu_needed.py docs/infer.md plugins/tile_pack/kernel.cu

Nothing but the standard library is imported, so that it runs before anything is installed. Whatever cannot be decided is an
error, never a "not needed".
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

LIST = Path(__file__).resolve().parents[2] / ".github" / "gpu-critical-paths.txt"


def main(words: Sequence[str] | None = None) -> int:
    """Print the decision, also to ``GITHUB_OUTPUT`` where that is set. 0 decided, 2 when it cannot be."""
    asked = _asked(words)
    try:
        files = asked.files or changed_files(asked.checkout, asked.base, asked.head)
        critical = critical_files(files, patterns(LIST.read_text(encoding="utf-8")))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in critical:
        print(f"file {path!a}")  # never as it stands: a runner takes a line that begins with "::" for a command
    needed = bool(critical)
    print(f"{'needed' if needed else 'not needed'}: {len(critical)} of {len(files)} changed files are on the list")
    if "GITHUB_OUTPUT" in os.environ:
        with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as stream:
            stream.write(f"needed={str(needed).lower()}\n")
    return 0


def patterns(text: str) -> tuple[str, ...]:
    """The lines of the list without comments. ValueError when there is none: an empty list would let everything pass."""
    found = tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    if not found:
        raise ValueError(f"{LIST.name} names nothing.")
    return found


def critical_files(files: Iterable[str], listed: Sequence[str]) -> list[str]:
    """Those of ``files`` (paths in the repository, with "/") that a pattern matches, in their order."""
    return [path for path in files if any(_matches(path, pattern) for pattern in listed)]


def _matches(path: str, pattern: str) -> bool:
    return path.startswith(pattern) if pattern.endswith("/") else fnmatchcase(path, pattern)


def changed_files(checkout: Path, base: str, head: str) -> list[str]:
    """Files that differ between the common ancestor of both commits and ``head``; of a file that moved, both names.

    Without a ``base`` (a run by hand compares with nothing): every file of ``head``. Raises ValueError when git cannot tell, or
    when nothing differs, which is a wrong pair of commits rather than a change.
    """
    changes = ["diff", "-z", "--name-only", "--no-renames", f"{base}...{head}", "--"]
    words = changes if base else ["ls-tree", "-rz", "--name-only", head]
    run = subprocess.run(["git", "-C", str(checkout), *words], capture_output=True, text=True, timeout=60)
    if run.returncode != 0:
        raise ValueError(f"git {' '.join(words)}: {run.stderr.strip()}")
    files = [name for name in run.stdout.split("\0") if name]
    if not files:
        raise ValueError(f"nothing differs between {base!r} and {head!r}.")
    return files


def _asked(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Does a change need a GPU?", epilog="Exit codes: 0 decided; 2 it cannot be.")
    parser.add_argument("files", nargs="*", help="Changed files; without them git is asked.")
    parser.add_argument("--checkout", type=Path, default=Path(), help="Of the change, with its history.")
    parser.add_argument("--base", default="", help="Commit to compare with; without it every file counts as changed.")
    parser.add_argument("--head", default="HEAD", help="Commit of the change.")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
