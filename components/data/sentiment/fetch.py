"""Stage `sentiment-fetch`: place texts of four domains with human valence, out of a pinned archive, under data/raw/.

Source: Hutto & Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text"
(ICWSM): mean valence by twenty raters, from -4 to 4.
"""

from __future__ import annotations

import argparse
import tarfile
from pathlib import Path

from components.data.packages import PackageFile, fetch_package_file
from components.errors import InputError
from components.files import write_atomic

__all__ = ["ARCHIVE", "DOMAINS", "LICENCE", "fetch"]

LICENCE = "MIT, of vaderSentiment, which carries the texts"
ARCHIVE = PackageFile(
    package="vaderSentiment",
    version="3.3.2",
    wheel="vaderSentiment-3.3.2.tar.gz",
    wheel_sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    member="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    licence=LICENCE,
)
DOMAINS = {
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
}


def fetch(folder: Path, cache: Path | None = None) -> None:
    """Copy the texts of each domain into a folder, byte for byte as published.

    Raises:
        InputError: The archive has no such file.
    """
    with tarfile.open(fetch_package_file(ARCHIVE, cache)) as archive:
        members = {Path(entry.name).name: entry for entry in archive if entry.isreg()}
        for domain, name in DOMAINS.items():
            stream = archive.extractfile(members[name]) if name in members else None
            if stream is None:
                raise InputError(f"{ARCHIVE.member} has no {name}", allowed=", ".join(DOMAINS.values()))
            write_atomic(folder / f"{domain}.txt", stream.read())


def main() -> None:
    """Run the stage: `python -m components.data.sentiment.fetch --out data/raw/sentiment`."""
    parser = argparse.ArgumentParser(description=fetch.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    fetch(parser.parse_args().out)


if __name__ == "__main__":
    main()
