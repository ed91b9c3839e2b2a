"""Tests run inside the image: on its Python, its packages and its compiled modules.

`python -m tests.node.image_tests` unpacks the image and runs pytest in it, with the tests, what they need of the locked
packages and programs of Debian laid beside it. The image itself is not changed: `hooks`, `gateway` and `program` are
those in `/app`. It takes root, for mounts; the network is this machine's.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.node import base_image, image, namespaces
from tools.repository import ROOT

SUITES: Final = (
    *(f"tests/unit/{package}" for package in ("gateway", "hooks", "program")),
    *(f"tests/integration/{package}" for package in ("gateway", "hooks", "program")),
)
"""Tests of what the image has."""
_PROGRAMS: Final = ("curl", "haproxy", "iproute2", "nginx-light", "openssl", "prometheus")
"""Debian packages of programs that the tests start."""
_SHIPPED: Final = ("gateway", "hooks", "program")
"""Folders of the tree that are not laid beside the image: they are in it."""
_FROM_COMPILED: Final = "ignore:the (type, exc, tb) signature of throw() is deprecated:DeprecationWarning"
"""Filter for a warning of Python 3.12 and later that the runtime of mypyc causes in every compiled coroutine that an
exception passes. The programs ignore it, as Python does by default; as an error it would be another exception."""
_SOURCE: Final = "/src"
_PACKAGES: Final = "/beside"
_TOOLS: Final = {"unshare": "util-linux", "setpriv": "util-linux", "pivot_root": "util-linux", "mount": "mount"}
"""Programs of this machine that enter the image, and the Debian packages that have them."""

_SCRIPT: Final = """\
set -e
lower=$1; folder=$2; shift 2
mount --make-rprivate /
mkdir -p "$folder/upper" "$folder/work" "$folder/merged"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$folder/merged"
cd "$folder/merged"
while read -r source target; do
  if [ -d "$source" ]; then mkdir -p ".$target"; else mkdir -p "$(dirname ".$target")"; : > ".$target"; fi
  mount --rbind "$source" ".$target"
done < "$folder/binds"
mkdir -p proc && mount -t proc proc proc
pivot_root . .
umount -l .
cd "$DIRECTORY"
"$@"
"""
"""Script that runs a command in folders laid over each other. It stays beside the command and waits for what it leaves
behind, as the first process of a container does."""

_INSTALL: Final = """\
# No server is started: it would listen on ports of this machine.
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@" >/tmp/install.log 2>&1 || { cat /tmp/install.log; exit 1; }
rm -rf /var/lib/apt/lists/* /tmp/install.log
"""
"""Script that installs the Debian packages which are its arguments."""


class Unavailable(Exception):
    """Tests cannot run inside the image here. The message says what is missing."""


def run(root: Path, command: Sequence[str], environment: Mapping[str, str], *, upper: Path | None = None,
        binds: Mapping[str, Path] | None = None, directory: str = "/", layers: Sequence[Path] = ()) -> int:  # fmt: skip
    """Run a command in a root file system and return its exit code.

    Args:
        root: the root file system, which stays as it is.
        command: the command and its arguments.
        environment: its whole environment.
        upper: folder that gets what the command writes; by default it is thrown away.
        binds: files and folders of this machine, by their paths inside.
        directory: where the command starts.
        layers: folders that are laid over the root file system, the first on top.
    """
    with base_image.scratch() as folder:
        if upper is not None:
            (folder / "upper").symlink_to(upper)
        host = {path: Path(path) for path in ("/dev", "/sys", "/etc/hosts", "/etc/resolv.conf")}
        lines = [f"{source} {target}\n" for target, source in {**host, **(binds or {})}.items()]
        (folder / "binds").write_text("".join(lines))
        lower = ":".join(map(str, (*layers, root)))
        words = [*namespaces.own(), "sh", "-c", _SCRIPT, "inside", lower, str(folder), *command]
        return subprocess.run(words, env={**environment, "DIRECTORY": directory}, check=False).returncode


def missing() -> str:
    """Return why nothing can be run inside the image here, as a sentence; an empty text when it can."""
    if os.geteuid() != 0:
        return "tests inside the image need root, for their mounts"
    absent = {package for program, package in _TOOLS.items() if shutil.which(program) is None}
    return f"tests inside the image need programs: apt-get install {' '.join(sorted(absent))}" if absent else ""


def environment(archive: Path) -> dict[str, str]:
    """Return the environment that the image in an archive gives its programs."""
    pairs = (word.partition("=") for word in image.configuration(archive)["config"]["Env"])
    return {key: value for key, _, value in pairs}


def programs(root: Path, shipped: Mapping[str, str]) -> Path:
    """Return a folder with the programs of Debian that the tests start, to be laid over the image.

    Raises:
        Unavailable: a package cannot be had.
    """
    release = (root / "etc/os-release").read_text()
    key = hashlib.sha256("\n".join((release, *_PROGRAMS)).encode()).hexdigest()[:12]
    folder = base_image.CACHE / f"programs-{key}"
    if folder.is_dir():
        return folder
    making = folder.with_name(f".{folder.name}")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    command = ["sh", "-ec", _INSTALL, "install", *_PROGRAMS]
    if run(root, command, {**shipped, "DEBIAN_FRONTEND": "noninteractive"}, upper=making):
        raise Unavailable(f"Debian packages cannot be installed beside the image: {' '.join(_PROGRAMS)}")
    making.rename(folder)
    return folder


def packages() -> Path:
    """Return a folder with the locked packages that the tests need and the image does not have.

    Raises:
        Unavailable: a package cannot be had.
    """
    key = hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()[:12]
    folder = base_image.CACHE / f"packages-{key}"
    if folder.is_dir():
        return folder
    making = folder.with_name(f".{folder.name}")
    shutil.rmtree(making, ignore_errors=True)
    shipped = _names(_uv("export", "--no-dev", "--extra", "otlp"))
    lines = [line for line in _uv("export", "--all-extras").splitlines() if not _names(line) & shipped]
    requirements = making.with_suffix(".txt")
    requirements.write_text("\n".join(lines))
    _uv("pip", "install", "--no-deps", "--only-binary", ":all:", "--python-version", "3.13", "--target", str(making),
        "--compile-bytecode", "--requirements", str(requirements))  # fmt: skip
    requirements.unlink()
    making.rename(folder)
    return folder


def _names(exported: str) -> set[str]:
    """Return the names of the packages in a list of requirements."""
    return {line.partition("==")[0] for line in exported.splitlines() if "==" in line}


def _uv(*words: str) -> str:
    uv = shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    flags = ("--locked", "--no-hashes", "--no-emit-project", "--no-annotate") if words[0] == "export" else ()
    result = subprocess.run([uv, "--quiet", *words, *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Unavailable(f"the packages of the tests cannot be had:\n{result.stderr[-2000:]}")
    return result.stdout


def _copy(target: Path) -> None:
    """Copy the tree without what is in the image, what is hidden and what was built."""
    for path in ROOT.iterdir():
        if path.name.startswith(".") or path.name in (*_SHIPPED, "build", "dist"):
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(path, target)


def test(arguments: Sequence[str]) -> int:
    """Run pytest inside the image and return its exit code.

    Raises:
        Unavailable: something that it takes is missing.
        image.Unavailable: the image cannot be built here.
        image.BuildError: the build of the image failed.
    """
    if reason := missing():
        raise Unavailable(reason)
    archive = image.build_image()
    shipped = environment(archive)
    with ExitStack() as stack:
        root, tree = (stack.enter_context(base_image.scratch()) for _ in range(2))
        root.chmod(0o755)
        image.unpack(archive, root)
        began = time.monotonic()
        with base_image.alone("beside"):
            beside = programs(root, shipped)
            binds = {_SOURCE: tree, _PACKAGES: packages()}
        if (seconds := time.monotonic() - began) > 1:
            print(f"laid programs and packages beside the image in {seconds:.0f} s", flush=True)
        _copy(tree)
        kept = {key: value for key, value in os.environ.items() if key in ("CI", "FUZZ_SECONDS", "FUZZ_SEED")}
        variables = {**shipped, **kept, "PYTHONPATH": _PACKAGES, "HOME": "/tmp"}

        def inside(*command: str) -> int:
            return run(root, command, variables, binds=binds, directory=_SOURCE, layers=(beside,))

        check = "import gateway.proxy as it; assert it.__file__.startswith('/app/') and it.__file__.endswith('.so'), it"
        return inside("python", "-c", check) or inside("python", "-m", "pytest", "-W", _FROM_COMPILED, *arguments)


def main() -> int:
    """Run the tests of what the image has; arguments go to pytest."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was laid beside the image is taken away
    paths = [] if any(word.startswith("tests/") for word in sys.argv[1:]) else SUITES
    try:
        return test([*sys.argv[1:], *paths])
    except (Unavailable, image.Unavailable) as exc:
        print(f"skipped: {exc}", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    except image.BuildError as exc:
        print(exc, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
