"""Containers of rendered pod specs as processes of this machine, as a kubelet would start them.

A container gets what its specification says and nothing else: arguments, environment, mounted ConfigMaps, Secrets and
empty directories, its ServiceAccount's token, a root file system of its own that is read-only, and its user without
capabilities. In the root file system are this machine's `/usr` and, as `/app`, what the Dockerfile would install: the
wheel and its locked dependencies. What differs: the network is this machine's, so that an address to listen on
becomes a free port of loopback (`ports` tells which), and memory limits and seccomp are not applied.

It takes root, for mounts. https://kubernetes.io/docs/concepts/workloads/pods/
"""

import base64
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests import dockerfile
from tests.e2e.binaries import CACHE
from tests.e2e.controlplane import ControlPlane
from tests.processes import poll, status
from tools import compiled
from tools.ports import free_port
from tools.repository import ROOT

_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_LISTEN: Final = re.compile(r"(?P<flag>--[a-z-]+=)(?:0\.0\.0\.0|\[::\])?:(?P<port>\d+)")
_SYSTEM_FILES: Final = ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/ssl")
_DEVICES: Final = ("null", "zero", "random", "urandom")
_BUILT: Final = "built"
"""File that an image has once it is built; its time is that of the last use."""
_DAY: Final = 24 * 3600.0

_SCRIPT: Final = """\
set -e
root=$1; binds=$2; shift 2
mount -t tmpfs -o mode=755 tmpfs "$root"
while read -r mode source target; do
  if [ -d "$source" ]; then mkdir -p "$root$target"; else mkdir -p "$(dirname "$root$target")"; : > "$root$target"; fi
  mount --bind "$source" "$root$target"
  [ "$mode" = rw ] || mount -o remount,bind,ro "$root$target"
done < "$binds"
for name in bin lib lib64 sbin; do ln -s "usr/$name" "$root/$name"; done
mkdir "$root/proc"
mount --rbind /proc "$root/proc"
[ "$READ_ONLY" = no ] || mount -o remount,ro "$root"
exec chroot "$root" "$@"
"""


def missing() -> str:
    """Return why no container can be started here, as a sentence; an empty text when one can."""
    if os.geteuid() != 0:
        return "containers of rendered pod specs need root, for their mounts"
    absent = [name for name in ("unshare", "setpriv", "chroot") if shutil.which(name) is None]
    return f"not here: {', '.join(absent)}" if absent else ""


class Image:
    """The content of the Dockerfile's image: the project's wheel and its locked dependencies, in an environment of its
    own."""

    def __init__(self) -> None:
        """Build the image by the Dockerfile's own command, its data path compiled where there is a compiler.

        An image is kept in the cache and built once for each state of the sources, also where several processes ask for
        it at the same time.

        Raises:
            subprocess.CalledProcessError: it cannot be built.
            CompileError: its data path cannot be compiled.
        """
        is_compiled = shutil.which("gcc") is not None
        images = CACHE / "images"
        images.mkdir(parents=True, exist_ok=True)
        folder = images / dockerfile.digest(sys.version, sys.base_prefix, str(is_compiled))[:16]
        self.app = folder / "app"
        with (images / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / _BUILT).exists():
                _remove_old(images)
                shutil.rmtree(folder, ignore_errors=True)
                _build(folder, is_compiled)
            (folder / _BUILT).touch()
        self.environment = {"PATH": "/app/bin:/usr/local/bin:/usr/bin:/bin"}
        for line in (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2].splitlines():
            if line.startswith("ENV "):
                pairs = (word.partition("=") for word in line.split()[1:])
                self.environment |= {name: value for name, _, value in pairs if name != "PATH"}

    @property
    def binds(self) -> dict[str, str]:
        """Return the paths of its parts on this machine, by their paths in the image. The interpreter is found where
        its environment expects it."""
        return {"/app": str(self.app), sys.base_prefix: sys.base_prefix}


def _build(folder: Path, is_compiled: bool) -> None:
    uv = shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    # A wheel of the same name and version may have been built earlier, from other sources.
    fresh = ("--reinstall-package", "beamlit-controller")
    command = [
        uv,
        "sync",
        "--quiet",
        "--locked",
        "--no-dev",
        "--extra",
        "otlp",
        "--no-editable",
        "--python",
        sys.executable,
        *fresh,
    ]
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment["UV_PROJECT_ENVIRONMENT"] = str(folder / "app")
    for path in dockerfile.sources():
        copy = folder / "source" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    subprocess.run(command, cwd=folder / "source", check=True, env=environment, timeout=1200)
    shutil.rmtree(folder / "source")
    if is_compiled:
        (packages,) = folder.glob("app/lib/python*/site-packages")
        compiled.lay(packages)


def _remove_old(images: Path) -> None:
    """Remove images that no run has asked for within a day."""
    for folder in images.iterdir():
        used = folder / _BUILT
        if folder.is_dir() and (not used.exists() or time.time() - used.stat().st_mtime > _DAY):
            shutil.rmtree(folder)


class Pod:
    """The first container of a Pod, or of a pod template, as a process."""

    def __init__(
        self,
        plane: ControlPlane,
        image: Image,
        workload: Mapping[str, Any],
        name: str,
        *,
        programs: Mapping[str, Path] | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        """Start it.

        Args:
            plane: the control plane, which has what the specification refers to.
            image: what its root file system holds.
            workload: a Deployment, StatefulSet or Pod as rendered.
            name: of the process.
            programs: which file here stands for a command of the image.
            environment: more of it, and
            arguments: more of them, for what one machine needs.
        """
        self._plane, self._image = plane, image
        self.namespace: str = workload["metadata"]["namespace"]
        template = workload if workload["kind"] == "Pod" else workload["spec"]["template"]
        self.labels: dict[str, str] = template["metadata"].get("labels", {})
        self.spec: dict[str, Any] = template["spec"]
        self.container: dict[str, Any] = self.spec["containers"][0]
        self.ports: dict[int, int] = {}
        """Ports of loopback behind the ports of the container."""
        self.folder = plane.folder / "pods" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "root").mkdir(parents=True)
        self._programs, self._more = dict(programs or {}), dict(environment or {})
        self.refresh()
        binds = self.folder / "binds"
        binds.write_text("".join(f"{mode} {source} {target}\n" for mode, source, target in self._binds()))
        script = self.folder / "start.sh"
        script.write_text(_SCRIPT)
        user = {**self.spec.get("securityContext", {}), **self.container.get("securityContext", {})}
        self.user: int = user.get("runAsUser", 65532)
        self.process = plane.run(
            name,
            *("unshare", "--mount", "--propagation", "private", "sh", str(script)),
            *(str(self.folder / "root"), str(binds)),
            *("setpriv", f"--reuid={self.user}", f"--regid={user.get('runAsGroup', self.user)}"),
            *(f"--groups={user['fsGroup']}" if "fsGroup" in user else "--clear-groups",),
            *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"),
            *("env", "-i", *(f"{key}={value}" for key, value in self._environment().items())),
            *self._command(),
            *arguments,
            environment=os.environ | {"READ_ONLY": "yes" if user.get("readOnlyRootFilesystem") else "no"},
        )

    def port(self, port: int | str) -> int:
        """Return the port of loopback behind a port of the container, given as number or name."""
        numbers = {one["name"]: int(one["containerPort"]) for one in self.container.get("ports", ())}
        return self.ports[numbers[port] if isinstance(port, str) else port]

    def probe(self, name: str) -> int:
        """Return the status that a probe of the container gets; 0 when there is no response."""
        get = self.container[f"{name}Probe"]["httpGet"]
        return status(f"http://127.0.0.1:{self.port(get['port'])}{get['path']}")

    @property
    def ready(self) -> bool:
        """Return whether it runs and its readiness probe succeeds; a container without one is ready when it runs."""
        return self.process.alive() and ("readinessProbe" not in self.container or self.probe("readiness") == 200)

    def until_ready(self) -> None:
        """Wait until it is ready; raise an error with the end of its log when that takes too long."""
        poll(
            lambda: self.ready or not self.process.alive(),
            f"{self.process.name}: {self.process.tail()}",
        )
        assert self.ready, self.process.tail()

    def refresh(self) -> None:
        """Write its volumes as they are in the API server now, which a kubelet does about once a minute."""
        for volume in self.spec.get("volumes", ()):
            folder = self._volume(volume["name"])
            if "configMap" in volume:
                stored = self._plane.get("configmap", volume["configMap"]["name"], self.namespace)
                data = {key: value.encode() for key, value in stored["data"].items()}
                _write_all(folder, _items(data, volume["configMap"]))
            elif "secret" in volume:
                stored = self._plane.get("secret", volume["secret"]["secretName"], self.namespace)
                data = {key: base64.b64decode(value) for key, value in stored["data"].items()}
                _write_all(folder, _items(data, volume["secret"]))
            else:
                assert volume.get("emptyDir") is not None, f"a volume of a kind that is not known here: {volume}"
                folder.chmod(0o2777)
        if self.spec.get("automountServiceAccountToken", True):
            account, folder = self.spec.get("serviceAccountName", "default"), self._volume("service-account")
            token = self._plane.kubectl("create", "token", account, "-n", self.namespace, "--duration", "24h").strip()
            files = {"token": token, "namespace": self.namespace, "ca.crt": self._plane.certificate.read_text()}
            _write_all(folder, {key: value.encode() for key, value in files.items()})

    def terminate(self) -> int:
        """End it as a kubelet does: preStop, SIGTERM, and SIGKILL after the grace period. Return the exit code."""
        grace = time.monotonic() + self.spec.get("terminationGracePeriodSeconds", 30)
        hook = self.container.get("lifecycle", {}).get("preStop", {}).get("exec")
        if hook is not None and self.process.alive():
            subprocess.run(hook["command"], check=True, timeout=grace - time.monotonic())
        return self.process.stop(seconds=grace - time.monotonic())

    def _volume(self, name: str) -> Path:
        folder = self.folder / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _binds(self) -> list[tuple[str, str, str]]:
        """Return mode, source on this machine, and place in the container of each mount."""
        system = [*(path for path in _SYSTEM_FILES if Path(path).exists()), *(f"/dev/{name}" for name in _DEVICES)]
        binds = [("ro", "/usr", "/usr"), *(("rw" if "dev" in path else "ro", path, path) for path in system)]
        binds += [("ro", source, target) for target, source in self._image.binds.items()]
        binds += [("ro", str(source), _program(command)) for command, source in self._programs.items()]
        empty = {volume["name"] for volume in self.spec.get("volumes", ()) if "emptyDir" in volume}
        for mount in self.container.get("volumeMounts", ()):
            mode = "rw" if mount["name"] in empty and not mount.get("readOnly") else "ro"
            binds.append((mode, str(self._volume(mount["name"])), mount["mountPath"]))
        if self.spec.get("automountServiceAccountToken", True):
            binds.append(("ro", str(self._volume("service-account")), _ACCOUNT))
        return binds

    def _environment(self) -> dict[str, str]:
        """Return the image's environment, the variables about the API server that every container gets, and the
        container's own."""
        own: dict[str, str] = {}
        for entry in self.container.get("env", ()):
            source = entry.get("valueFrom", {}).get("secretKeyRef")
            if source is not None:
                stored = self._plane.get("secret", source["name"], self.namespace)
                own[entry["name"]] = base64.b64decode(stored["data"][source["key"]]).decode()
            else:
                own[entry["name"]] = entry["value"]
        server = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self._plane.port)}
        return self._image.environment | server | own | self._more

    def _command(self) -> list[str]:
        """Return command and arguments, with a port of loopback for each that the container listens on."""
        words = [*self.container.get("command", ()), *self.container.get("args", ())]
        words = [_program(word) if word in self._programs else word for word in words]
        return [_LISTEN.sub(self._listening, word) if _LISTEN.fullmatch(word) else word for word in words]

    def _listening(self, match: re.Match[str]) -> str:
        port = self.ports.setdefault(int(match["port"]), free_port())
        return f"{match['flag']}127.0.0.1:{port}"


def _program(command: str) -> str:
    """Return the path of the file that stands for a command: `/usr` itself is this machine's and gets no new files."""
    return f"/programs/{Path(command).name}"


def _items(data: Mapping[str, bytes], source: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a volume: all keys of its object, or those that it names. A kubelet requires each of them."""
    if "items" not in source:
        return dict(data)
    return {item["path"]: data[item["key"]] for item in source["items"]}


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make these the folder's only files, each replaced as a whole, as readers may look at any moment."""
    for name, content in files.items():
        partial = folder / f".{name}"
        partial.write_bytes(content)
        partial.replace(folder / name)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
