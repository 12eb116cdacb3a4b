"""Why an API server does not answer, as one sentence with the way out."""

from __future__ import annotations

from tui.clusters.reach.wire import last_line, plain


def why_unreachable(error: BaseException | str, host: str, context: str) -> str:
    """From what the connection failed with: `ssl`, the system, or urllib3 around either."""
    text = str(error)
    lower = text.lower()
    host, context = plain(host), plain(context)
    if "certificate has expired" in lower:
        return (
            f"The certificate of {host} has expired: renew it on the control plane (kubeadm certs renew), or correct"
            " this machine's clock."
        )
    if "certificate is not yet valid" in lower:
        return f"The certificate of {host} is not valid yet: correct this machine's clock."
    if "hostname mismatch" in lower or "ip address mismatch" in lower or "doesn't match" in lower:
        return (
            f"The certificate of {host} is for another name: correct the server of context {context}, or set its"
            " tls-server-name."
        )
    if "alert" in lower and ("certificate" in lower or "unknown ca" in lower):
        return (
            f"{host} refuses the client certificate of context {context} ({_reason(text)}): log in again, or renew it."
        )
    if "certificate_verify_failed" in lower or "certificate" in lower:
        return (
            f"The certificate of {host} is not trusted by context {context}: check its certificate authority in the"
            " kubeconfig."
        )
    if any(sign in lower for sign in ("wrong_version_number", "wrong version number", "record layer failure")):
        return f"What listens at {host} speaks no TLS: is its URL in context {context} one of http://?"
    if "connect to proxy" in lower:
        return f"The HTTP proxy on the way to {context} cannot be gone through ({_why(text, error)}): is it running?"
    return f"The API server {host} of {context} cannot be reached ({_why(text, error)}): is it restarting?"


def _why(text: str, error: BaseException | str) -> str:
    lower = text.lower()
    if "refused" in lower:
        return "connection refused"
    if "timed out" in lower:
        return "no answer in time"
    if "resolve" in lower or "name or service" in lower or "no address associated" in lower:
        return "unknown host name"
    said = last_line(text.rpartition(": ")[2])
    return plain(said) or (error if isinstance(error, str) else type(error).__name__)


def _reason(text: str) -> str:
    """`[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2580)` without its ends."""
    return plain(last_line(text.rpartition("] ")[2].partition(" (_ssl")[0]))
