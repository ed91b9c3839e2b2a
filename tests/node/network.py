"""The network of a node: a bridge to which its pods are attached, their DNS server, and the rules of Services."""

import json
import subprocess
from pathlib import Path
from typing import Final

import yaml

BRIDGE: Final = "cni0"
GATEWAY: Final = "10.244.0.1"
"""Address of the node as its pods see it."""
PODS: Final = "10.244.0.0/24"
_PROXY: Final = "127.0.0.1:10256"
PROXY_HEALTH: Final = f"http://{_PROXY}/healthz"
"""URL, in the node, that says whether the rules of Services are written."""
DOMAIN: Final = "cluster.local"
_SETTINGS: Final = {
    "net/ipv4/ip_forward": "1",
    # The rules of Services and NetworkPolicies have to see the packets between two pods of the bridge.
    "net/bridge/bridge-nf-call-iptables": "1",
}


def start() -> None:
    """Make the bridge. It is there before the first pod, so that the API server can listen on its address."""
    for command in (
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"address add {GATEWAY}/{PODS.partition('/')[2]} dev {BRIDGE}",
        f"link set {BRIDGE} up",
        # Without a default route the kernel refuses what pods send to Services before any rule has seen it.
        f"route add default dev {BRIDGE}",
    ):
        subprocess.run(["ip", *command.split()], check=True, capture_output=True)
    for name, value in _SETTINGS.items():
        Path("/proc/sys", name).write_text(value)


def write_cni(folder: Path) -> None:
    """Write the description of pods' network that containerd reads."""
    folder.mkdir()
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,  # a pod may be its own Service's endpoint
        "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    (folder / "10-pods.conflist").write_text(json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}))


def corefile(kubeconfig: Path) -> str:
    """Return the configuration of CoreDNS: names of Services, and no others, as the node has no way out."""
    return f"""\
.:53 {{
  bind {GATEWAY}
  errors
  kubernetes {DOMAIN} in-addr.arpa {{
    kubeconfig {kubeconfig}
    ttl 1
  }}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""


def proxy(kubeconfig: Path) -> str:
    """Return the configuration of kube-proxy."""
    return yaml.safe_dump(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": PODS,
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "healthzBindAddress": _PROXY,
            "metricsBindAddress": "127.0.0.1:10249",
            "oomScoreAdj": 0,
            "iptables": {"minSyncPeriod": "100ms"},
            # The kernel has these once for all its networks, and they are not the node's to change.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
    )
