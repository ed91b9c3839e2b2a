"""Directory source with the store: routes from real files that change."""

import asyncio
import base64
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.api.v1alpha1 import KEY, LABEL, LABEL_VALUE, Backend, RouteDocument, Split
from gateway.routes.sources import directory as directory_source
from gateway.routes.sources.directory import DirectorySource
from gateway.routes.sources.secrets import Secrets
from gateway.routes.store import RouteStore
from gateway.telemetry import Metrics
from tests.deadlines import NEVER, SECONDS
from tests.integration.servers import until


def config_map(name: str = "demo", percentage: int = 0, namespace: str = "default", **backend: Any) -> dict[str, Any]:
    """Return a route ConfigMap as `kubectl get -o yaml` prints it; `backend` has fields of the local backend."""
    document = RouteDocument(
        name=name,
        backends=(Backend(id="local", service=f"{name}-local", weight=100, port=80, **backend),),
        split=Split(percentage=percentage, reason="Local"),
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{name}-route",
            "namespace": namespace,
            "labels": {LABEL: LABEL_VALUE},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "data": {KEY: document.canonical_json()},
    }


def write(path: Path, *objects: dict[str, Any]) -> None:
    """Write objects as an editor does: to a new file, which is renamed over the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(yaml.safe_dump_all(objects))
    beside.rename(path)


@asynccontextmanager
async def followed(directory: Path, **rest: Any) -> AsyncIterator[RouteStore]:
    """Yield a store that follows `directory`."""
    store = RouteStore(
        namespaces=None, cluster_domain="cluster.local", bare_hostnames="namespace", metrics=Metrics(), clock=time.time
    )
    task = asyncio.create_task(DirectorySource(directory, **rest).run(store.apply, store.confirm))
    try:
        async with asyncio.timeout(SECONDS):
            await store.loaded.wait()
        yield store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.close()


def percentage(store: RouteStore, key: str = "default/demo") -> int | None:
    """Return the percentage of a route in force; None when there is no such route."""
    route = store.table.routes.get(key)
    return route.document.split.percentage if route else None


async def test_a_change_counts_at_once(tmp_path: Path) -> None:
    """New, changed and removed files are in force when the system reports them, not only at the next regular look."""
    async with followed(tmp_path, poll_seconds=NEVER) as store:
        for step in range(1, 6):
            write(tmp_path / "demo.yaml", config_map(percentage=step))
            await until(lambda step=step: percentage(store) == step)  # type: ignore[misc]
        (tmp_path / "demo.yaml").unlink()
        await until(lambda: percentage(store) is None)


async def test_a_broken_file_is_reported_and_its_last_routes_stay(tmp_path: Path) -> None:
    """Invalid YAML, a key twice, an invalid document and a file too large are reported; the last good route stays."""
    path = tmp_path / "demo.yaml"
    write(path, config_map(percentage=1))
    write(tmp_path / "other.yaml", config_map("other"))
    async with followed(tmp_path) as store:
        path.write_text("a: [")
        await until(lambda: str(path) in store.source_errors)
        assert "is not YAML in line" in store.source_errors[str(path)]
        assert percentage(store) == 1
        broken = config_map(percentage=2)
        broken["data"][KEY] = '{"apiVersion": "gateway.beamlit.com/v2"}'
        write(path, broken)
        await until(lambda: store.documents["default/demo-route"].error is not None)
        assert percentage(store) == 1
        assert str(path) not in store.source_errors
        path.write_text("kind: ConfigMap\nmetadata: {name: a}\nkind: Secret\n")
        await until(lambda: "'kind' in line 1 and again in line 3" in store.source_errors.get(str(path), ""))
        assert percentage(store) == 1
        path.write_bytes(b"\xff\xfe")
        await until(lambda: "not UTF-8" in store.source_errors.get(str(path), ""))
        path.write_text("#" * (5 << 20))
        await until(lambda: "larger than" in store.source_errors.get(str(path), ""))
        assert percentage(store) == 1
        write(path, config_map(percentage=3))
        await until(lambda: percentage(store) == 3)
        assert store.source_errors == {}
        assert store.documents["default/demo-route"].error is None
        assert percentage(store, "default/other") == 0


async def test_an_empty_file_removes_nothing(tmp_path: Path) -> None:
    """A file that was emptied is reported and its routes stay; removing the file removes them."""
    path = tmp_path / "demo.yaml"
    write(path, config_map(percentage=1))
    async with followed(tmp_path) as store:
        for empty in ("", "\n"):
            path.write_text(empty)
            await until(lambda: "is empty" in store.source_errors.get(str(path), ""))
            assert percentage(store) == 1
            path.write_text(yaml.safe_dump(config_map(percentage=2)))
            await until(lambda: str(path) not in store.source_errors)
            assert percentage(store) == 2
            path.write_text(yaml.safe_dump(config_map(percentage=1)))
            await until(lambda: percentage(store) == 1)
        path.unlink()
        await until(lambda: percentage(store) is None)


async def test_a_file_that_is_being_written_counts_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a file is applied until writing has paused, even when its first part is valid YAML."""
    monkeypatch.setattr(directory_source, "SETTLE_SECONDS", 1.5)  # longer than a busy machine pauses
    path = tmp_path / "demo.yaml"
    write(path, config_map(percentage=1))
    text = yaml.safe_dump(config_map(percentage=2))
    cut = text.index("  labels:")
    assert yaml.safe_load(text[:cut])["metadata"]  # an object, and no route
    keys: set[tuple[str, ...]] = set()
    async with followed(tmp_path) as store:
        with path.open("w") as file:
            for piece in (text[:cut], *text[cut:].splitlines(keepends=True)):
                file.write(piece)
                file.flush()
                for _ in range(3):
                    await asyncio.sleep(0.05)
                    keys.add(tuple(store.table.routes))
                assert percentage(store) == 1
        await until(lambda: percentage(store) == 2)
    assert keys == {("default/demo",)}


async def test_the_directory_goes_and_comes_back(tmp_path: Path) -> None:
    """Routes stay when the directory is removed; when it comes back, its files are applied."""
    directory = tmp_path / "routes"
    write(directory / "demo.yaml", config_map(percentage=1))
    async with followed(directory, poll_seconds=0.1) as store:
        shutil.move(directory, tmp_path / "away")
        await until(lambda: store.source_errors.get(str(directory)) == "is not a directory")
        assert percentage(store) == 1
        write(directory / "demo.yaml", config_map(percentage=2))
        await until(lambda: percentage(store) == 2)
        assert store.source_errors == {}


async def test_lists_many_documents_and_folders(tmp_path: Path) -> None:
    """Lists, several documents in a file and files in subfolders are read; objects of other kinds are ignored."""
    write(tmp_path / "list.yaml", {"apiVersion": "v1", "kind": "List", "items": [config_map("a"), config_map("b")]})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    plain = config_map("plain")
    del plain["metadata"]["labels"]
    write(tmp_path / "deep/down/two.yaml", config_map("c"), pod, plain, config_map("d", namespace="team-b"))
    (tmp_path / "notes.txt").write_text("no YAML")
    (tmp_path / ".hidden.yaml").write_text("a: [")
    async with followed(tmp_path) as store:
        assert set(store.table.routes) == {"default/a", "default/b", "default/c", "team-b/d"}
        assert store.source_errors == {}


async def test_rd_04_a_volume_of_a_config_map(tmp_path: Path) -> None:
    """RD-04: when a kubelet swaps the symlink `..data`, the files behind it are in force at once."""

    def publish(number: int) -> None:
        folder = tmp_path / f"..{number}"
        write(folder / "demo.yaml", config_map(percentage=number))
        link = tmp_path / "..data_tmp"
        link.symlink_to(folder.name)
        link.rename(tmp_path / "..data")

    publish(1)
    (tmp_path / "demo.yaml").symlink_to("..data/demo.yaml")
    async with followed(tmp_path, poll_seconds=NEVER) as store:
        assert percentage(store) == 1
        publish(2)
        await until(lambda: percentage(store) == 2)
        assert set(store.documents) == {"default/demo-route"}


async def test_a_missed_notification_is_repaired(tmp_path: Path) -> None:
    """Polling finds changes without notification, such as those behind a symlink to another directory."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    inside.mkdir()
    write(outside / "demo.yaml", config_map(percentage=1))
    (inside / "demo.yaml").symlink_to(outside / "demo.yaml")
    async with followed(inside, poll_seconds=0.1) as store:
        assert percentage(store) == 1
        write(outside / "demo.yaml", config_map(percentage=2))
        await until(lambda: percentage(store) == 2)


async def test_secrets_are_read_by_name_and_only_with_the_label(tmp_path: Path) -> None:
    """A Secret with the label gives its decoded data; one without it is refused."""
    good = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "good", "namespace": "default", "labels": {"gateway.beamlit.com/credential": ""}},
        "data": {"clientSecret": base64.b64encode(b"s3cr3t").decode(), "broken": "%%%"},
        "stringData": {"clientId": "id"},
    }
    unlabeled = good | {"metadata": {"name": "unlabeled", "namespace": "default"}}
    write(tmp_path / "secrets.yaml", good, unlabeled)
    source = DirectorySource(tmp_path)
    source.read()
    secrets = Secrets(source)
    assert await secrets.secret("default", "good") == {"clientId": "id", "clientSecret": "s3cr3t"}
    for namespace, name, reason in (
        ("default", "unlabeled", "does not carry the label"),
        ("default", "none", "does not exist"),
        ("team-b", "good", "does not exist"),
    ):
        with pytest.raises(LookupError, match=reason):
            await secrets.secret(namespace, name)


async def test_inline_credentials_of_a_model_deployment(tmp_path: Path) -> None:
    """Inline credentials are for the ModelDeployment's own remote host alone, and its caBundle is trusted with them."""
    oauth = {"clientId": "id", "clientSecret": "s", "tokenUrl": "https://t/"}
    oauth |= {"tokenAuth": "client_secret_post", "audience": "a", "resource": "urn:r"}
    remote = {"host": "m.example.com", "authConfig": {"oauthConfig": oauth}, "tls": {"caBundle": "PEM"}}
    parent = {
        "apiVersion": "deployment.beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "demo", "namespace": "default"},
        "spec": {"offloadingConfig": {"remoteBackend": remote}},
    }
    write(tmp_path / "demo.yaml", parent)
    source = DirectorySource(tmp_path)
    source.read()
    assert await Secrets(source).inline("default", "demo") == oauth | {
        "hosts": "m.example.com",
        "tls.caBundle": "PEM",
    }
