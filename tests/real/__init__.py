"""A real control plane under the tests: upstream Kubernetes, etcd and containerd, built from their Go modules.

`build` compiles what is missing, `plain` runs etcd and an API server as processes on loopback, `node` a node of
kubeadm's shape in namespaces of its own. `python -m tests.real` does the same for a person; docs/testing.md tells how.
"""
