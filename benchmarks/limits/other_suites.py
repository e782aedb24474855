"""The test files of other projects: does the reader say of each what Biopython and pysam say?

    pip install biopython
    python -m benchmarks.limits.other_suites --folder /tmp/suites -o benchmarks/results/other_suites.json

The files come in packages, sources from PyPI (by pip) and test packages of Debian (by apt-get and dpkg-deb, so this
runs on Debian only). They stay in the folder, and a second run downloads nothing. FASTQ and FASTA are compared with
Biopython, SAM, BAM and CRAM (without references) with pysam: names up to white space, bases in capitals, in order.
Files are read in a process of their own; one that takes more than a minute is a hang.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import pysam

from benchmarks import kit
from benchmarks.tables import Json, markdown
from wyr_batch.errors import InputError
from wyr_batch.reads.open import open_reads

SECONDS, MOST_BYTES, SHOWN = 60, 50_000_000, 100
FORMATS = {"fastq": "FASTQ", "fq": "FASTQ", "fasta": "FASTA", "fa": "FASTA", "fna": "FASTA", "faa": "FASTA"}
FORMATS |= {"sam": "SAM", "bam": "BAM", "cram": "CRAM"}
NAME = re.compile(rf"\.({'|'.join(FORMATS)})(\.gz|\.bgz)?$", re.IGNORECASE)
SAME, BOTH = "same reads", "both refuse"
OUTCOMES = [SAME, BOTH, "we refuse, they read", "we read, they refuse", "reads differ", "crash", "hang"]
# Looked for in our message, then in the first difference, then in their message.
REASONS = [
    (r"starts with '\+' after the sequence|a quality line of", "FASTQ of more than 4 lines a record"),
    (r"\b1 tab-separated fields", "a line of the SAM header without a tab"),
    (r"byte '\\x", "control characters among the bases"),
    (r"byte .* of the sequence", "digits or signs among the bases"),
    (r"got 0 bytes|blank lines", "an empty file"),
    (r"end marker", "a file cut before its end marker"),
    (r"^read \d+: '' of", "white space before the name in a FASTA header"),
    (r"captions differ", "another name after '+' than in the header"),
    (r"OSError: truncated file", "SAM without its @SQ lines, which pysam needs"),
    (r"valid header", "a SAM header that pysam does not take"),
]
# The package, of PyPI if it has a version, else of Debian, and the folder in it that paths are relative to.
SUITES = {
    "Biopython": ("biopython==1.88", "biopython-1.88"),
    "cutadapt": ("cutadapt==5.2", "cutadapt-5.2/tests"),
    "dnaio": ("dnaio==1.2.4", "dnaio-1.2.4/tests"),
    "htslib": ("htslib-test", "usr/share/htslib-test/test"),
    "samtools": ("samtools-test", "usr/share/samtools/test"),
    "pysam": ("python-pysam-tests", "usr/share/doc/python-pysam/tests"),
}


class Verdict(NamedTuple):
    """What a reader said: `read`, `refused`, `crash` or `hang`; of each read its name, length and checksum."""

    kind: str
    text: str
    reads: list[tuple[str, int, int]]
    format: str | None = None


def fetched(wanted: str, folder: Path) -> Path:
    """Download and unpack a package unless it is there; returns the folder, called as the package's file."""
    name, _, number = wanted.partition("==")
    words = ["apt-get", "download", name]
    if number:
        words = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name, wanted]
    pattern = f"{name}-{number}.tar.gz" if number else f"{name}_*.deb"
    if not list(folder.glob(pattern)):
        subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    package = max(folder.glob(pattern))
    unpacked, half = (folder / "unpacked" / f"{package.name}{end}" for end in ("", ".half"))
    if not unpacked.exists():
        half.mkdir(parents=True, exist_ok=True)
        if number:
            with tarfile.open(package) as archive:
                archive.extractall(half, filter="data")
        else:
            subprocess.run(["dpkg-deb", "-x", package, half], check=True)
        for packed in half.rglob("*.bam.gz"):  # Debian packs what is large in a folder of documentation
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
            packed.unlink()
        half.rename(unpacked)
    return unpacked


def files(roots: dict[str, Path], left: Counter[str]) -> Iterator[tuple[str, str, str]]:
    """Give suite, path in it and format by the name of each file; counts in `left` what is left out."""
    seen = set()
    for suite, root in roots.items():
        for file in sorted(root.rglob("*")):
            if not (match := NAME.search(file.name)) or not file.is_file():
                continue
            if file.stat().st_size > MOST_BYTES:
                left["too large"] += 1
            elif (digest := hashlib.sha256(file.read_bytes()).digest()) in seen:
                left["copies"] += 1
            else:
                seen.add(digest)
                yield suite, str(file.relative_to(root)), FORMATS[match[1].lower()]


def described(name: str, sequence: bytes) -> tuple[str, int, int]:
    """Name up to white space, length, and checksum of the capitals."""
    return (name.split(None, 1) or [""])[0], len(sequence), zlib.crc32(sequence.upper())


def ours(path: str) -> Verdict:
    """What wyr-batch says."""
    reads, found = [], None
    try:
        with open_reads(path) as source:
            found = source.format
            for chunk in source:
                bases = chunk.bases.tobytes()
                for i, name in enumerate(chunk.ids.to_pylist()):
                    reads.append(described(name, bases[chunk.offsets[i] : chunk.offsets[i + 1]]))
    except InputError as error:
        return Verdict("refused", str(error).removeprefix(path).lstrip(":, "), reads, found)
    except Exception as error:  # any other is a bug, and a row of the table
        return Verdict("crash", f"{type(error).__name__}: {error}", reads, found)
    return Verdict("read", f"reads: {len(reads):,}", reads, found)


def theirs(path: str, form: str) -> Verdict:
    """What Biopython (FASTQ, FASTA) or pysam says."""
    reads = []
    try:
        for name, sequence in _biopython(path, form) if form in ("FASTQ", "FASTA") else _pysam(path):
            reads.append(described(name, sequence))
    except Exception as error:  # they have no common one
        return Verdict("refused", f"{type(error).__name__}: {error}", reads)
    return Verdict("read", f"reads: {len(reads):,}", reads)


def _biopython(path: str, form: str) -> Iterator[tuple[str, bytes]]:
    from Bio import SeqIO

    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rt") if packed else open(path) as text:
        for record in SeqIO.parse(text, form.lower()):
            yield record.id, bytes(record.seq)


def _pysam(path: str) -> Iterator[tuple[str, bytes]]:
    pysam.set_verbosity(0)
    with pysam.AlignmentFile(path, check_sq=False) as file:
        for record in file.fetch(until_eof=True):
            if not (record.is_secondary or record.is_supplementary):
                yield record.query_name or "*", (record.get_forward_sequence() or "").encode()


def answer(root: Path, path: str, form: str) -> Verdict:
    """What we say, or with a format what they say; the kernel ends the process if that takes too long."""
    warnings.simplefilter("ignore")
    os.chdir(root)  # messages then have the path within the suite
    signal.alarm(SECONDS)
    verdict = theirs(path, form) if form else ours(path)
    signal.alarm(0)
    return verdict


class Asked:
    """Asks in another process, and in a new one after a crash or a hang."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def __call__(self, root: Path, path: str, form: str = "") -> Verdict:
        start = time.monotonic()
        try:
            return self._pool.submit(answer, root, path, form).result()
        except BrokenProcessPool:
            self.close()
            self._pool = Asked()._pool
            if time.monotonic() - start < SECONDS:
                return Verdict("crash", "the process was ended", [])
            return Verdict("hang", f"no end after {SECONDS} s", [])

    def close(self) -> None:
        self._pool.shutdown()


def compared(our: Verdict, their: Verdict) -> tuple[str, str]:
    """Return the outcome and, where reads differ, the first difference."""
    if "hang" in (our.kind, their.kind):
        return "hang", ""
    if our.kind == "crash":
        return "crash", ""
    if our.kind == "refused":
        return ("we refuse, they read" if their.kind == "read" else BOTH), ""
    if their.kind != "read":
        return "we read, they refuse", ""
    for i, (one, other) in enumerate(zip(our.reads, their.reads, strict=False)):
        if one != other:
            return "reads differ", f"read {i + 1}: {one[0]!r} of {one[1]} bp, theirs {other[0]!r} of {other[1]} bp"
    return (SAME if len(our.reads) == len(their.reads) else "reads differ"), ""


def reason(*texts: str) -> str:
    """Return the reason that the first of the texts to have one gives."""
    return next((why for text in texts for pattern, why in REASONS if re.search(pattern, text)), "other")


def shortened(verdict: Verdict) -> str:
    """A verdict on one line, without the name of the read."""
    text = " ".join(re.sub(r"^read '.*?', ", "", verdict.text).split())
    text = text if verdict.kind == "read" else f"{verdict.kind}: {text}"
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the packages are kept")
    args = parser.parse_args()
    if importlib.util.find_spec("Bio") is None:
        parser.error("got no package 'Bio', expected it to be installed. Run: pip install biopython")
    args.folder.mkdir(parents=True, exist_ok=True)
    folders = {suite: fetched(package, args.folder.resolve()) for suite, (package, _) in SUITES.items()}
    roots = {suite: folder / SUITES[suite][1] for suite, folder in folders.items()}
    ask, left, others = Asked(), Counter({"copies": 0, "too large": 0}), []
    counts: Counter[tuple[str, str, str]] = Counter()
    for suite, path, form in files(roots, left):
        our = ask(roots[suite], path)
        their = ask(roots[suite], path, our.format or form)
        outcome, difference = compared(our, their)
        counts[suite, form, outcome] += 1
        if outcome not in (SAME, BOTH):
            row = {"suite": suite, "file": path, "outcome": outcome, "ours": shortened(our), "theirs": shortened(their)}
            others.append({"reason": reason(our.text, difference, their.text), **row, "first_difference": difference})
    ask.close()
    kinds = sorted({key[:2] for key in counts}, key=lambda key: (list(SUITES).index(key[0]), key[1]))
    result = {
        "left_out": dict(left),
        "packages": {suite: folder.name for suite, folder in folders.items()},
        "rows": [
            {"suite": suite, "format": form, "outcomes": {name: counts[suite, form, name] for name in OUTCOMES}}
            for suite, form in kinds
        ],
        "files": sorted(others, key=lambda row: row["reason"]),
    }
    kit.write_result(args.output, "other_suites", result)


def table(data: Json) -> str:
    outcomes = list(data["rows"][0]["outcomes"])
    counts = [[row["suite"], row["format"], *row["outcomes"].values()] for row in data["rows"]]
    counts.append(["all", "", *(sum(row["outcomes"][name] for row in data["rows"]) for name in outcomes)])
    lines = [[f"{cell or ''}" for cell in row] for row in counts]
    left, versions = data["left_out"], data["versions"]
    about = (
        f"FASTQ and FASTA against Biopython {versions['biopython']}, SAM, BAM and CRAM (without references) against "
        f"pysam {versions['pysam']}: names and bases, every file of these formats in the packages. Left out: "
        f"{left['copies']} copies, {left['too large']} above 50 MB. Packages: {', '.join(data['packages'].values())}."
    )
    verdicts = []
    for row in data["files"]:
        words = [row["first_difference"] or row["ours"], row["theirs"]]
        cells = [f"`{text}`".replace("|", "\\|") for text in (row["file"], *words)]
        verdicts.append([row["reason"], row["suite"], *cells])
    listed = markdown(["why", "suite", "file", "wyr-batch", "the other"], verdicts)
    return f"{about}\n\n{markdown(['suite', 'format', *outcomes], lines)}\n\nWhere the two disagree:\n\n{listed}"


if __name__ == "__main__":
    main()
