"""Programs of a real control plane, built from the Go module proxy into a cache and found again.

`python -m tests.e2e.binaries` builds what is missing (some 17 minutes the first time, nothing after that). A program on
PATH or named by an environment variable of its name (KUBE_APISERVER, HELM, …) is taken instead. With names of tools,
such as `helm kubeconform`, it builds these.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOOLS: Final = Path(__file__).with_name("tools")
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beamlit-e2e"
GO: Final = "1.26"
_SOURCE: Final = "source"
"""Folder, below the one in which a tool is built, with its source where that is not the module as it is."""

KUBERNETES: Final = "1.36.3"
_VERSION = "k8s.io/component-base/version"
KUBERNETES_FLAGS: Final = " ".join(
    f"-X {_VERSION}.{name}={value}"
    for name, value in {
        "gitVersion": f"v{KUBERNETES}",
        "gitMajor": "1",
        "gitMinor": "36",
        "gitTreeState": "clean",
        "gitCommit": "release",
        "buildDate": "1970-01-01T00:00:00Z",
    }.items()
)
"""Flags without which the server calls itself v0.0.0, and clients that compare versions fail."""


class BuildError(Exception):
    """A program could not be built. The message names what is missing."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of a tool's source, where no flag sets the same."""

    module: str
    path: str
    """Path of the file below the module."""
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Tool:
    """One Go module below `tools/` and the programs built from it."""

    name: str
    version: str
    packages: tuple[str, ...]
    flags: str = ""
    edits: tuple[Edit, ...] = ()
    """Changes of one module's source."""
    tools: Path = TOOLS
    module: str = ""
    """Name of the folder below `tools` with its go.mod, where that is not its own name."""

    @property
    def folder(self) -> Path:
        """Folder of its programs once they are built."""
        return CACHE / f"{self.name}-v{self.version}"

    @property
    def source(self) -> Path:
        """Folder with its go.mod."""
        return self.tools / (self.module or self.name)

    @property
    def programs(self) -> tuple[str, ...]:
        """Names of its programs: the last part of each package that is neither a version nor `cmd`."""
        return tuple(_program(package) for package in self.packages)


def _program(package: str) -> str:
    return "etcd" if package.startswith("go.etcd.io/") else package.removesuffix("/cmd").rpartition("/")[2]


KWOK: Final = Tool("kwok", "0.8.0", ("sigs.k8s.io/kwok/cmd/kwok",))
TEST_ADAPTER_LISTEN: Final = "TEST_ADAPTER_LISTEN"
"""Environment variable with the host:port where the test-adapter takes values."""
_ADAPTER: Final = "sigs.k8s.io/custom-metrics-apiserver"
ALL: Final = (
    Tool("etcd", "3.7.3", ("go.etcd.io/etcd/server/v3",)),
    Tool("helm", "3.22.0", ("helm.sh/helm/v3/cmd/helm",)),
    Tool(
        "kubernetes",
        KUBERNETES,
        tuple(
            f"k8s.io/kubernetes/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        ),
        KUBERNETES_FLAGS,
    ),
    KWOK,
    Tool("metrics-server", "0.9.0", ("sigs.k8s.io/metrics-server/cmd/metrics-server",)),
    Tool(
        "test-adapter",
        "1.37.0",
        (f"{_ADAPTER}/test-adapter",),
        # It would accept values from all clients, at a port that is often in use.
        edits=(Edit(_ADAPTER, "test-adapter/main.go", '":8080"', f'os.Getenv("{TEST_ADAPTER_LISTEN}")'),),
    ),
)

JUDGES: Final = (
    Tool("kubeconform", "0.8.0", ("github.com/yannh/kubeconform/cmd/kubeconform",)),
    Tool("kube-score", "1.20.0", ("github.com/zegl/kube-score/cmd/kube-score",)),
    Tool("actionlint", "1.7.12", ("github.com/rhysd/actionlint/cmd/actionlint",)),
)
"""Programs of others that judge the chart and the workflows."""


def find(program: str) -> Path | None:
    """Return the path of a program that the environment names, or that is in the cache or on PATH; None when there is
    none."""
    named = os.environ.get(program.upper().replace("-", "_"))
    if named:
        return Path(named)
    for tool in (*ALL, *JUDGES):
        if program in tool.programs and (path := tool.folder / program).is_file():
            return path
    on_path = shutil.which(program)
    return Path(on_path) if on_path else None


def build(tool: Tool) -> None:
    """Build a tool's programs into the cache.

    Raises:
        BuildError: there is no Go of the right version, or the build fails.
    """
    if all((tool.folder / program).is_file() for program in tool.programs):
        return
    if shutil.which("go") is None and all(find(program) for program in tool.programs):
        return
    go = _go(tool)
    print(f"building {tool.name} {tool.version}", flush=True)
    making = tool.folder.with_name(f".{tool.folder.name}")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    environment = os.environ | {"GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "0"}
    edited = _edited(tool, making) if tool.edits else ()
    for package, program in zip(tool.packages, tool.programs, strict=True):
        flags = ("-trimpath", "-ldflags", f"-s -w {tool.flags}", *edited)
        command = [go, "build", *flags, "-o", str(making / program), package]
        result = subprocess.run(command, cwd=tool.source, env=environment, capture_output=True, text=True)
        if result.returncode:
            raise BuildError(f"{program} {tool.version} cannot be built:\n{result.stderr[-2000:]}")
    shutil.rmtree(making / _SOURCE, ignore_errors=True)
    shutil.rmtree(tool.folder, ignore_errors=True)
    making.rename(tool.folder)


def kwok_files() -> Path:
    """Return the folder of kwok's own descriptions of what nodes and pods do, kept beside its program.

    Raises:
        BuildError: the files are not there yet, and there is no Go to get them with.
    """
    kept = KWOK.folder / "kustomize"
    if kept.is_dir():
        return kept
    source = _module(KWOK, "sigs.k8s.io/kwok") / "kustomize"
    KWOK.folder.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=KWOK.folder))
    _copy(source, making, "*.yaml")
    try:
        making.rename(kept)
    except OSError:  # another process was faster
        shutil.rmtree(making)
    return kept


def _edited(tool: Tool, making: Path) -> tuple[str, ...]:
    """Return flags with which go builds a tool from a copy of its module, below `making`, that has the edits."""
    source = making / _SOURCE
    copy = source / "module"
    (module,) = {edit.module for edit in tool.edits}
    _copy(_module(tool, module), copy, "*")
    for edit in tool.edits:
        path = copy / edit.path
        text = path.read_text()
        if edit.old not in text:
            raise BuildError(f"{tool.name} {tool.version}: {edit.path} has no {edit.old}")
        path.write_text(text.replace(edit.old, edit.new))
    for name in ("go.mod", "go.sum"):
        shutil.copy(tool.source / name, source)
    command = [_go(tool), "mod", "edit", f"-replace={module}={copy}", str(source / "go.mod")]
    subprocess.run(command, check=True, capture_output=True)
    return ("-modfile", str(source / "go.mod"))


def _module(tool: Tool, module: str) -> Path:
    """Return the folder with the source of a module, which is downloaded if necessary."""
    command = [_go(tool), "mod", "download", "-json", module]
    result = subprocess.run(command, cwd=tool.source, capture_output=True, text=True)
    if result.returncode:
        raise BuildError(f"the module {module} cannot be had:\n{(result.stderr or result.stdout)[-2000:]}")
    return Path(json.loads(result.stdout)["Dir"])


def _copy(source: Path, target: Path, pattern: str) -> None:
    """Copy files one by one: folders of the module cache are read-only, and copies of whole folders would be too."""
    for path in source.rglob(pattern):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


def _go(tool: Tool) -> str:
    go = shutil.which("go")
    if go is None:
        raise BuildError(f"{tool.name} is built with Go {GO}, which is missing: install it, or put {tool.name} on PATH")
    return go


def main(names: Sequence[str]) -> int:
    """Build the tools of these names that are missing; without names all that a control plane consists of."""
    try:
        for tool in (*ALL, *JUDGES):
            if tool.name in names or (not names and tool in ALL):
                build(tool)
        if not names:
            kwok_files()
    except BuildError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
