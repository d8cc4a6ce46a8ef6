"""Run BentoML's build in a process of its own: `python -m deploy.bento_build NAME VERSION REQUIREMENTS`.

BentoML imports the service from the build folder, changes the working folder and `sys.path`, and reads its home from
the environment at import; a process of its own keeps all of that away from the caller. The current folder is the
build folder; the path of the bento is the last line on standard output.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["main"]


def main(name: str, version: str, requirements_file: str) -> None:
    """Build a bento of everything in the current folder.

    Args:
        name: The bento's name.
        version: Its version.
        requirements_file: Pinned packages, one a line; they are taken as they are.
    """
    import bentoml

    # README.md in the build folder becomes the bento's description; naming it is refused below a hidden folder
    packages = Path(requirements_file).read_text(encoding="utf-8").split()
    bento = bentoml.build(
        "deploy.service:service",
        name=name,
        version=version,
        include=["**"],
        python={"packages": packages, "lock_packages": False},
        docker={"python_version": f"{sys.version_info.major}.{sys.version_info.minor}"},
    )
    print(bento.path)


if __name__ == "__main__":
    main(*sys.argv[1:])
