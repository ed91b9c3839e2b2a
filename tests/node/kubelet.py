"""The configuration of a kubelet that runs on a machine like CI's: cgroup v1, no systemd, a few rights less than root
has elsewhere."""

from pathlib import Path
from typing import Final

import yaml

from tests.node.network import DOMAIN, GATEWAY
from tests.node.runtime import SOCKET

NAME: Final = "node-0"


def configuration(folder: Path, cgroup: str, port: int) -> str:
    """Return the configuration of kubelet.

    Args:
        folder: where it writes.
        cgroup: name of the cgroup below which pods have theirs.
        port: where it serves the API server and metrics-server.
    """
    return yaml.safe_dump(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "0.0.0.0",
            "port": port,
            "healthzPort": 0,
            "tlsCertFile": f"{folder}/apiserver.crt",
            "tlsPrivateKeyFile": f"{folder}/apiserver.key",
            # Only processes of the node's own network reach it.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "podLogsDir": f"{folder}/logs",
            "cgroupRoot": f"/{cgroup}",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "clusterDNS": [GATEWAY],
            "clusterDomain": DOMAIN,
            "resolvConf": "/dev/null",
            "registerNode": True,
            "syncFrequency": "5s",
            # Changed ConfigMaps and Secrets reach the files of pods within seconds, not a minute.
            "configMapAndSecretChangeDetectionStrategy": "Watch",
            "nodeStatusUpdateFrequency": "10s",
            # The disk is shared with everything else on this machine.
            "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "maxPods": 110,
        }
    )
