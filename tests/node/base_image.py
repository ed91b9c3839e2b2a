"""A base for the image, made of Debian packages where the one that the Dockerfile names cannot be pulled.

It has what the Dockerfile and the programs use of that one: Debian trixie, its Python 3.13 with pip and headers, and
certificate authorities, those that this machine trusts among them. It is made once, by debootstrap, and kept in a cache
outside the tree. It is for tests: no release is built on it.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests import dockerfile
from tests.node import namespaces

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beamlit-node"
"""Folder of what is kept between runs."""
ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", "LANG": "C.UTF-8"}
"""Environment of the image's programs."""
PROGRAMS: Final = {
    "debootstrap": "debootstrap", "chroot": "coreutils", "tar": "tar", "unshare": "util-linux", "setpriv": "util-linux",
}  # fmt: skip
"""Programs that make it, and the Debian packages that have them."""
_SCRATCH: Final = ".scratch-"
"""Beginning of the names of folders that last as long as a process; its id follows."""
_SUITE: Final = "trixie"
_PACKAGES: Final = ("ca-certificates", "python3", "python3-dev", "python3-pip-whl")
_AUTHORITIES: Final = Path("/usr/local/share/ca-certificates")
_FINISH: Final = """\
update-ca-certificates >/dev/null
ln -s python3 /usr/bin/python
wheels=/usr/share/python-wheels
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
PYTHONDONTWRITEBYTECODE=1 python3 "$(echo $wheels/pip-*.whl)/pip" install --quiet --root-user-action=ignore \
  --no-cache-dir --no-index --find-links $wheels pip
apt-get purge --yes python3-pip-whl >/dev/null
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/* /tmp/* /usr/share/doc /usr/share/man
"""


class Unavailable(Exception):
    """The base image cannot be made. The message says what is missing."""


@contextlib.contextmanager
def alone(what: str) -> Iterator[None]:
    """Let one process at a time make something that is kept in the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder in the cache for as long as the context lasts, and remove those of processes that were killed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for folder in CACHE.glob(f"{_SCRATCH}*"):
        pid = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{_SCRATCH}{os.getpid()}-") as made:
        yield Path(made)


def name() -> str:
    """Return the name of the base image that is made here: the Dockerfile's, as one of this machine."""
    repository, _, tag = dockerfile.argument("BASE").partition("@")[0].rpartition(":")
    return f"localhost/{repository}:{tag}-{_key()}"


def root_file_system() -> Path:
    """Return a tar archive of the root file system of the base image, which is made when it is not in the cache.

    Raises:
        Unavailable: a program or a right is missing, or a package cannot be had.
    """
    archive = CACHE / f"base-{_key()}.tar"
    if archive.is_file():
        return archive
    if os.geteuid() != 0:
        raise Unavailable("only root can make a base image with debootstrap")
    absent = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if absent:
        raise Unavailable(f"a base image is made with programs that are missing: apt-get install {' '.join(absent)}")
    with alone("base"):
        if not archive.is_file():
            _make(archive)
    return archive


def _make(archive: Path) -> None:
    print("making a base image with debootstrap", flush=True)
    began = time.monotonic()
    with scratch() as folder:
        root, making = folder / "root", folder / "base.tar"
        _run("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(root))
        authorities = root / str(_AUTHORITIES).removeprefix("/")
        for certificate in _authorities():
            shutil.copy(certificate, authorities)
        _run("chroot", str(root), "sh", "-ec", _FINISH)
        _run("tar", "--create", "--numeric-owner", "--one-file-system", "--exclude=./dev/*", "--exclude=./proc/*",
             f"--directory={root}", f"--file={making}", ".")  # fmt: skip
        making.rename(archive)
    print(f"made a base image in {time.monotonic() - began:.0f} s", flush=True)


def _authorities() -> list[Path]:
    """Return the files of authorities that this machine trusts beside Debian's: its packages may come by them."""
    return sorted(_AUTHORITIES.glob("*.crt"))


def _key() -> str:
    """Return a name of the content: another recipe makes another image."""
    content = hashlib.sha256("\n".join((_SUITE, *_PACKAGES, _FINISH)).encode())
    for certificate in _authorities():
        content.update(certificate.read_bytes())
    return content.hexdigest()[:12]


def _run(*command: str) -> None:
    environment = {**os.environ, **ENVIRONMENT, "DEBIAN_FRONTEND": "noninteractive"}
    # debootstrap mounts /proc and /sys in the new root.
    alone = namespaces.own("--mount-proc")
    result = subprocess.run([*alone, *command], env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Unavailable(f"{command[0]} failed:\n{(result.stdout + result.stderr)[-2000:]}")


def main() -> int:
    """Make the base image and print the path of its root file system."""
    try:
        print(root_file_system())
    except Unavailable as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
