"""Nodes as a script finds them, made of a few files: manifests as kubeadm writes them, and what plans make of them."""

from __future__ import annotations

from dataclasses import replace

from tui.clusters.model import Container, HostFile, NodeFacts, Plan

MANIFESTS = "/etc/kubernetes/manifests"
APISERVER = f"{MANIFESTS}/kube-apiserver.yaml"
ETCD = f"{MANIFESTS}/etcd.yaml"
NOW = 1_795_000_000


def apiserver(version: str = "v1.34.2", extra: str = "") -> str:
    """The manifest of an API server; `extra` are lines after its flags."""
    return f"""\
apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint: 192.0.2.10:6443
  creationTimestamp: null
  labels:
    component: kube-apiserver
    tier: control-plane
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=192.0.2.10
    - --allow-privileged=true  # kept
    - --etcd-servers=https://127.0.0.1:2379
    - --secure-port=6443
{extra}    image: registry.k8s.io/kube-apiserver:{version}
    imagePullPolicy: IfNotPresent
    livenessProbe:
      failureThreshold: 8
      httpGet:
        host: 192.0.2.10
        path: /livez
        port: 6443
        scheme: HTTPS
    name: kube-apiserver
    volumeMounts:
    # certificates
    - mountPath: /etc/ssl/certs
      name: ca-certs
      readOnly: true
    - mountPath: /etc/kubernetes/pki
      name: k8s-certs
      readOnly: true
  hostNetwork: true
  priorityClassName: system-node-critical
  volumes:
  - hostPath:
      path: /etc/ssl/certs
      type: DirectoryOrCreate
    name: ca-certs
  - hostPath:
      path: /etc/kubernetes/pki
      type: DirectoryOrCreate
    name: k8s-certs
status: {{}}
"""


def etcd(version: str = "3.6.5-0") -> str:
    """The manifest of an etcd member."""
    return f"""\
apiVersion: v1
kind: Pod
metadata:
  labels: {{component: etcd, tier: control-plane}}
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=https://192.0.2.10:2379
    - --initial-cluster=cp-1=https://192.0.2.10:2380
    - --listen-metrics-urls=http://127.0.0.1:2381
    - --name=cp-1
    image: registry.k8s.io/etcd:{version}
    name: etcd
    volumeMounts:
    - mountPath: /var/lib/etcd
      name: etcd-data
  volumes:
  - hostPath:
      path: /var/lib/etcd
      type: DirectoryOrCreate
    name: etcd-data
"""


def node(*, containers: tuple[Container, ...] | None = None, **files: str | bytes) -> NodeFacts:
    """A node with these files: `apiserver=`, `etcd=` are manifests, others go by `path_of`."""
    named = {"apiserver": APISERVER, "etcd": ETCD}
    texts = {named.get(name, name): text for name, text in files.items()}
    return facts_with({path: HostFile(path, _bytes(text)) for path, text in texts.items()}, containers)


def facts_with(files: dict[str, HostFile], containers: tuple[Container, ...] | None = None) -> NodeFacts:
    """A node with these files."""
    manifests = tuple(sorted(path.rpartition("/")[2] for path in files if path.startswith(MANIFESTS + "/")))
    return NodeFacts(
        host="ssh://root@cp-1", hostname="cp-1", root=True, tools=frozenset(), manifest_directory=MANIFESTS,
        manifests=manifests, files=files, containers=containers, now=NOW,
    )  # fmt: skip


def after(facts: NodeFacts, plan: Plan) -> NodeFacts:
    """The node when a plan is done."""
    files = dict(facts.files)
    for change in plan.changes:
        held = files.get(change.path)
        assert (held.content if held is not None else None) == change.before
        files[change.path] = HostFile(change.path, change.after, change.mode, change.uid, change.gid, change.label)
    return replace(facts, files=files)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
