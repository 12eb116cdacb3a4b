"""The Receiver screen: what the receiver says, and the recipe when nothing comes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from receiver.store.database import Database
from tests.tui.driver import Open
from tests.tui.still_feed import RECEIVED, SECOND, StillFeed
from tui.clusters.endpoint import on_this_machine
from tui.screens.receiver import recipe, recipe_lines

STATUS: dict[str, Any] = {
    "pid": 4711,
    "version": "0.1.0",
    "started": RECEIVED,
    "db": "/var/lib/spans.db",
    "child": True,
    "listeners": [
        {"name": "local", "address": "127.0.0.1:4317", "tls": False, "error": None},
        {"name": "local6", "address": "[::1]:4317", "tls": False, "error": "Port 4317 is taken by otelcol (pid 99)."},
        {"name": "lab", "address": "10.0.0.5:4318", "tls": True, "error": None},
    ],
    "accepted": 65_810,
    "rejected": 0,
    "refused": 0,
    "malformed": 0,
    "evicted_spans": 0,
    "evicted_traces": 0,
    "requests": 412,
    "bytes_in": 20 << 20,
    "live_bytes": 38 << 20,
    "cap_bytes": 512 << 20,
    "disk_full": False,
    "message": "",
    "senders": [
        {
            "peer": "127.0.0.1:51882",
            "service": "apiserver",
            "instance": "apiserver-x4",
            "source": "local",
            "spans": 61_000,
            "last": RECEIVED + 20 * SECOND,
            "agent": "OTel OTLP Exporter Go/1.40.0",
        },
        {
            "peer": "127.0.0.1:51900",
            "service": "",
            "instance": "",
            "source": "local",
            "spans": 4,
            "last": RECEIVED - 500 * SECOND,
            "agent": "\x1b]0;evil\x07",
        },
    ],
    "attached": 1,
}
SILENT: dict[str, Any] = {**STATUS, "senders": [], "accepted": 0}


def live(status: dict[str, Any] | None = STATUS, database: Database | None = None, quiet: int = 1) -> StillFeed:
    feed = StillFeed(database, live=True)
    feed.status = status
    feed.start()
    feed.turn()
    feed.clock = max(feed.snapshot.last_arrival, (status or {}).get("started", RECEIVED)) + quiet * SECOND
    feed.start = lambda: None  # type: ignore[method-assign]
    return feed


async def test_listeners_senders_totals(drive: Open) -> None:
    async with drive(feed=live()) as d:
        await d.press("tab", "tab", "tab")
        assert "listening 127.0.0.1:4317, 10.0.0.5:4318" in d.title
        assert "received 65,810   refused 0   lost 0" in d.title
        assert re.search(r"local6 +\[::1\]:4317 +✗ Port 4317 is taken by otelcol \(pid 99\)\.", d.screen)
        assert re.search(r"lab +10\.0\.0\.5:4318 +TLS", d.screen)
        assert re.search(r"127\.0\.0\.1:51882 +apiserver +61,000 ", d.screen)
        assert "(no service" in d.screen
        assert "OTel OTLP Exporter Go/1.40.0" in d.screen
        assert "\x1b" not in d.screen
        assert "65,810 spans in 412 exports, 20 MiB" in d.screen
        assert "38 MiB of 512 MiB" in d.screen
        assert "turn tracing on" in d.screen
        assert "TracingConfiguration" not in d.screen


@pytest.mark.parametrize(
    ("width", "left"),
    [
        (150, "Receiver  listening 127.0.0.1:4317, 10.0.0.5:4318 ─"),
        (94, "Receiver  listening 127.0.0.1:4317 and 1 more ─"),
        (60, "Receiver ─"),
    ],
)
async def test_what_was_received_is_in_the_title_at_any_width(drive: Open, width: int, left: str) -> None:
    async with drive((width, 24), feed=live()) as d:
        await d.press("tab", "tab", "tab")
        assert d.title.startswith(f"─ {left}")
        assert d.title.endswith("received 65,810   refused 0   lost 0 ─")
        assert re.search(r"127\.0\.0\.1:4317 +plain text$", d.lines[3])


async def test_what_was_refused_or_lost_is_marked(drive: Open) -> None:
    async with drive(feed=live({**STATUS, "refused": 3, "rejected": 5, "malformed": 2, "broken_off": 7})) as d:
        assert "! 3 refused" in d.lines[0]
        assert "! 7 lost" in d.lines[0]
        await d.press("tab", "tab", "tab")
        assert "! 3 exports; senders try those again" in d.screen
        assert "! 5 spans rejected, 2 exports that were not OTLP" in d.screen
        assert "! 7 exports: over 16 MiB" in d.screen


async def test_whose_spans_were_evicted(drive: Open) -> None:
    lost = [
        {"source": "local", "sender": f"uid {user}", "spans": 10_000 - user, "traces": 7} for user in range(1001, 1006)
    ]
    lost[1] = {"source": "x\x1b]0;evil\x07", "sender": "", "spans": "many"}
    async with drive(feed=live({**STATUS, "evicted_spans": 50_000, "evicted_by": lost})) as d:
        await d.press("tab", "tab", "tab")
        assert "of uid 1001 at local 8,999 spans, x" in d.screen
        assert "uid 1003 at local 8,997 spans, 2 others 17,991 spans" in d.screen
        assert "\x1b" not in d.screen


@pytest.mark.parametrize("width", [60, 80, 120])
async def test_no_sentence_is_cut(drive: Open, width: int) -> None:
    lost = [{"source": "local", "sender": f"uid {user}", "spans": 10_000 - user, "traces": 7} for user in range(5)]
    async with drive((width, 40), feed=live({**STATUS, "evicted_spans": 50_000, "evicted_by": lost})) as d:
        await d.press("tab", "tab", "tab")
        words = " ".join(d.screen.split())
        said = "✗ Port 4317 is taken by otelcol (pid 99)."
        assert said in words if width >= 80 else all(word in words for word in said.split())
        assert "uid 2 at local 9,998 spans, 2 others 19,993 spans" in words


@pytest.mark.parametrize("size", [(150, 50), (80, 24)])
async def test_nothing_for_a_minute_shows_what_to_paste(drive: Open, size: tuple[int, int]) -> None:
    feed = live(SILENT, Database.memory(), quiet=59)
    async with drive(size, feed=feed) as d:
        await d.press("tab", "tab", "tab")
        assert "TracingConfiguration" not in d.screen
        feed.clock += 70 * SECOND
        await d.settle()
        assert "Nothing has arrived for 2 min" in d.screen
        assert "apiVersion: apiserver.config.k8s.io/v1beta1" in d.screen
        assert "endpoint: 127.0.0.1:4317" in d.screen
        await d.press("c")
        assert "TracingConfiguration" in d.app.clipboard
        await d.press("t")
        assert "TracingConfiguration" not in d.screen


async def test_the_recipe_can_be_asked_for_while_spans_arrive(drive: Open) -> None:
    async with drive(feed=live()) as d:
        await d.press("tab", "tab", "tab", "t")
        assert "TracingConfiguration" in d.screen
        assert "Nothing has arrived" not in d.screen
        await d.command("recipe")
        assert "TracingConfiguration" not in d.screen


async def test_restarts_and_broken_settings_leave_a_note(drive: Open) -> None:
    restarts = [[RECEIVED + second * SECOND, why] for second, why in enumerate(["it ended", "1", "2", "SIGKILL\x1b"])]
    async with drive((80, 40), feed=live({**STATUS, "restarts": restarts}), keymap={"app.hlep": "f1"}) as d:
        await d.press("tab", "tab", "tab")
        assert re.search(r"restarted +at \d\d:\d\d:\d\d after SIGKILL", d.screen)
        assert "and 1 before" in d.screen
        assert "\x1b" not in d.screen
        d.app.toasts.dismiss()
        await d.settle()
        assert "there is no binding 'app.hlep'" in d.screen


async def test_without_a_receiver(drive: Open) -> None:
    async with drive(feed=live(None)) as d:
        assert "no receiver" in d.lines[0]
        await d.press("tab", "tab", "tab")
        assert "! not running" in d.title


async def test_a_recording_says_who_is_in_it(drive: Open) -> None:
    async with drive() as d:
        await d.press("tab", "tab", "tab")
        assert "a recording: nothing is received" in d.title
        assert re.search(r" apiserver +apiserver-\w+ +[\d,]+", d.screen)
        assert re.search(r" etcd ", d.screen)


@pytest.mark.parametrize(
    ("listeners", "endpoint"),
    [
        ([], "127.0.0.1:4317"),
        ([{"address": "127.0.0.1:44317"}], "127.0.0.1:44317"),
        ([{"address": "[::1]:4317", "error": "taken"}, {"address": "10.0.0.5:4318"}], "10.0.0.5:4318"),
        ([{"address": "0.0.0.0:4317"}], "127.0.0.1:4317"),
        ([{"address": "unix:/run/x.sock"}], "127.0.0.1:4317"),
        ("nonsense", "127.0.0.1:4317"),
    ],
)
def test_the_endpoint_is_that_of_a_listener(listeners: Any, endpoint: str) -> None:
    assert on_this_machine({"listeners": listeners}) == endpoint


def test_what_is_pasted_is_what_kubernetes_reads() -> None:
    """The rules of kubernetes' own validation (k8s.io/component-base/tracing/api/v1)."""
    pasted = [text for kind, text in recipe("127.0.0.1:4317") if kind == "paste"]
    config = yaml.safe_load("\n".join(pasted[:4]))
    assert config["apiVersion"] == "apiserver.config.k8s.io/v1beta1"
    assert config["kind"] == "TracingConfiguration"
    assert "//" not in config["endpoint"]
    assert 0 < config["samplingRatePerMillion"] <= 1_000_000
    mount = yaml.safe_load(next(text for text in pasted if "mountPath" in text))[0]
    at = pasted.index("# spec.volumes")
    volume = yaml.safe_load("\n".join(pasted[at : at + 3]))[0]
    flag = next(text for text in pasted if "--tracing-config-file=" in text)
    assert mount["name"] == volume["name"]
    assert flag.partition("=")[2].startswith(mount["mountPath"] + "/")
    assert volume["hostPath"]["path"] == mount["mountPath"]
    assert mount["mountPath"] != "/etc/kubernetes/manifests"


def test_the_recipe_warns_of_what_breaks_clusters() -> None:
    text = " ".join(text for _, text in recipe("127.0.0.1:4317"))
    assert "No backup in the manifests directory" in text
    assert "without it the server does not start" in text
    assert "v1 from Kubernetes 1.34 on" in text
    assert "--enable-distributed-tracing=true  # etcd 3.6 and later" in text
    assert "--experimental-enable-distributed-tracing=true" in text
    assert "about 40 s" in text


def test_the_copied_recipe_is_comments_and_yaml() -> None:
    lines = recipe_lines("127.0.0.1:4317")
    assert all(line.startswith("# ") for line in lines if "kubelet runs" in line or "kubeadm" in line)
    assert "endpoint: 127.0.0.1:4317" in lines
    assert not [line for line in lines if "\n" in line]
