"""Checks of `make run` before it starts its programs, and the end of those programs."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from examples.processes import Children
from examples.run import Ports, RunError, check_ports
from examples.state import StateError, prepare
from tests.deadlines import SECONDS
from tests.processes import poll
from tools.ports import free_port
from tools.repository import ROOT


class TestPorts:
    """Tests of the check of ports before anything starts."""

    def test_taken(self, tmp_path: Path) -> None:
        """A port in use gives one line with the port, its program and the flag, and nothing is started or written."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            command = [sys.executable, "-m", "examples.run", "--state", str(tmp_path / "state")]
            numbers = {name: free_port() for name in Ports.__dataclass_fields__}
            numbers["admin"] = port
            flags = [word for name, number in numbers.items() for word in (f"--{name}-port", str(number))]
            ended = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=SECONDS, cwd=ROOT)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.count("\n") == 1
        assert f"Port {port}" in ended.stderr
        assert "the gateway's admin page" in ended.stderr
        assert "--admin-port" in ended.stderr
        assert not (tmp_path / "state").exists()

    def test_wanted_twice(self) -> None:
        """One port for two programs is refused."""
        port = free_port()
        with pytest.raises(RunError, match=r"wanted by the gateway and by hooks.*--hooks-port"):
            check_ports(Ports(gateway=port, hooks=port, admin=free_port()))


class TestStateFolder:
    """Tests of the state folder, into which the examples are copied once."""

    def test_copied_once(self, tmp_path: Path) -> None:
        """A second start keeps what the user edited and does not bring back what the user removed."""
        folder = prepare(tmp_path, local=9101, remote=9102, admin=8081, reset=False)
        original = (ROOT / "examples/manifests/demo.yaml").read_text()
        assert (folder.manifests / "demo.yaml").read_text() == original
        (folder.manifests / "demo.yaml").write_text("# mine\n")
        (folder.manifests / "demo-server.yaml").unlink()
        folder.lock.close()
        again = prepare(tmp_path, local=9101, remote=9102, admin=8081, reset=False)
        again.lock.close()
        assert (folder.manifests / "demo.yaml").read_text() == "# mine\n"
        assert not (folder.manifests / "demo-server.yaml").exists()

    def test_reset(self, tmp_path: Path) -> None:
        """A reset brings the examples back and removes nothing outside the folders that `make run` writes."""
        folder = prepare(tmp_path, local=9101, remote=9102, admin=8081, reset=False)
        (folder.manifests / "mine.yaml").write_text("# mine\n")
        (tmp_path / "notes.txt").write_text("mine")
        folder.lock.close()
        prepare(tmp_path, local=9101, remote=9102, admin=8081, reset=True).lock.close()
        assert not (folder.manifests / "mine.yaml").exists()
        assert (folder.manifests / "demo.yaml").exists()
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_reset_of_something_else(self, tmp_path: Path) -> None:
        """A reset refuses a folder that is not of `make run`."""
        (tmp_path / "objects").mkdir()
        with pytest.raises(StateError, match="--reset empties state folders"):
            prepare(tmp_path, local=9101, remote=9102, admin=8081, reset=True)
        assert (tmp_path / "objects").exists()

    def test_ports_move(self, tmp_path: Path) -> None:
        """The addresses of the model servers and of the admin port follow their ports, even when two change places."""
        folder = prepare(tmp_path, local=9102, remote=9101, admin=8081, reset=False)
        assert "host: 127.0.0.1:9101" in (folder.manifests / "demo.yaml").read_text()
        assert 'host: "127.0.0.1:9101"' in folder.config.read_text()
        assert folder.resolve()[0] == "demo-local.default.svc.cluster.local:80=127.0.0.1:9102"
        folder.lock.close()
        prepare(tmp_path, local=5001, remote=5002, admin=5003, reset=False).lock.close()
        assert "host: 127.0.0.1:5002" in (folder.manifests / "demo.yaml").read_text()
        assert 'adminAddress: "127.0.0.1:5003"' in folder.config.read_text()

    def test_one_at_a_time(self, tmp_path: Path) -> None:
        """A second start on the same folder is refused."""
        folder = prepare(tmp_path, local=9101, remote=9102, admin=8081, reset=False)
        with pytest.raises(StateError, match="Another `make run` uses"):
            prepare(tmp_path, local=9101, remote=9102, admin=8081, reset=True)
        assert folder.config.exists()
        folder.lock.close()

    def test_broken_workloads(self, tmp_path: Path) -> None:
        """A workloads.yaml that cannot be used gives an error of one line, and a missing one gives none."""
        folder = prepare(tmp_path, local=9101, remote=9102, admin=8081, reset=False)
        folder.workloads.write_text("resolve: [1]\n")
        with pytest.raises(StateError, match="resolve must be a list"):
            folder.resolve()
        folder.workloads.write_text("a: [")
        with pytest.raises(StateError) as caught:
            folder.resolve()
        assert "\n" not in str(caught.value)
        folder.workloads.write_text("resolve: []\nworkloads: []\nresolve: []\n")
        with pytest.raises(StateError, match=r"workloads\.yaml has the key 'resolve' in line 1 and again in line 3"):
            folder.resolve()
        folder.workloads.unlink()
        assert folder.resolve() == ()
        folder.lock.close()

    def test_not_a_folder(self, tmp_path: Path) -> None:
        """A state folder that is a file is refused."""
        (tmp_path / "file").write_text("")
        with pytest.raises(StateError, match="cannot be used"):
            prepare(tmp_path / "file", local=9101, remote=9102, admin=8081, reset=False)


STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("here", flush=True)
while True:
    time.sleep(1)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder with modules that children can run."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    (tmp_path / "dies.py").write_text("raise SystemExit('no more')")
    link = tmp_path / "examples"
    link.symlink_to(ROOT / "examples")
    yield tmp_path
    link.unlink()


class TestChildren:
    """Tests of child processes and their ends."""

    def test_stubborn(self, programs: Path) -> None:
        """A child that ignores SIGTERM is killed, at once when that is asked for."""
        children = Children(programs, programs)
        child = children.start("a child", "stubborn")
        poll(lambda: "here" in child.tail())
        assert children.dead() is None
        children.stop(lambda: True)
        assert child.how_it_ended() == "was ended by SIGKILL"

    def test_death(self, programs: Path) -> None:
        """A child that ends by itself is noticed, with its exit status and its last lines."""
        children = Children(programs, programs)
        child = children.start("a child", "dies")
        poll(lambda: children.dead() is child)
        assert child.how_it_ended() == "ended with exit status 1"
        assert child.tail() == "    no more"
        children.stop(lambda: False)

    def test_parent_killed(self, programs: Path) -> None:
        """After `kill -9` of the parent even a child that ignores SIGTERM is gone within seconds."""
        parent = (
            "import sys, time; from pathlib import Path; from examples.processes import Children\n"
            "children = Children(Path('.'), Path('.'))\n"
            "print(children.start('a child', 'stubborn').process.pid, flush=True)\n"
            "time.sleep(60)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", parent], cwd=programs, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        orphan = psutil.Process(int(process.stdout.readline()))
        poll(lambda: "here" in (programs / "a-child.log").read_text())
        process.kill()
        process.wait()
        process.stdout.close()
        psutil.wait_procs([orphan], timeout=SECONDS)
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
