"""Nobody but the page that was opened is answered, nothing hangs, and the server ends with its page."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from miniscope_xr.tools.cli import view as command
from miniscope_xr.tools.view import Viewer, door, measure
from miniscope_xr.tools.view.seen import SeenRecording
from miniscope_xr.tools.view.server import MOST_BODY, PAGE

from .conftest import Asker

CARD = {"card": 0, "recording": 0}


def test_the_page_and_its_parts_are_served(viewing):
    asker = viewing()
    page = asker.raw("GET", asker.path)
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    for path in PAGE.iterdir():
        answer = asker.get(path.name)
        assert (answer.status, answer.data) == (200, path.read_bytes())
    for _, name in re.findall(rb'(src|href)="([^"]+)"', page.data):
        assert asker.get(name.decode()).status == 200


def test_the_page_is_small_still_and_names_no_other_server():
    files = list(PAGE.iterdir())
    assert sum(path.stat().st_size for path in files) < 300_000
    assert not [path.name for path in files if re.search("transition|animation|smooth", path.read_text("utf-8"))]
    for path in files:
        addresses = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", path.read_text(encoding="utf-8"))
        assert not [a for a in addresses if a != "http://www.w3.org"], path.name  # a namespace, never fetched


def test_answers_forbid_what_a_page_does_not_need(viewing):
    asker = viewing()
    headers = asker.raw("GET", asker.path).headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers


def test_without_the_token_nothing_is_answered(viewing, clean_card):
    asker = viewing(clean_card[0])
    wrong = f"/{'x' * 32}/"
    for path in ("/", "/start", "/index.html", wrong, wrong + "start", asker.path[:-2] + "/start"):
        answer = asker.raw("GET", path)
        assert answer.status == 403, path
        assert str(clean_card[0]).encode() not in answer.data


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "evil.example:{port}", "127.0.0.1.evil.example:{port}", ""]
)
def test_a_name_made_to_lead_here_is_not_answered(viewing, host):
    asker = viewing()
    port = asker.host.rpartition(":")[2]
    assert asker.raw("GET", asker.path + "start", Host=host.format(port=port)).status == 421


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
     {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}],
)  # fmt: skip
def test_a_page_of_another_site_is_not_answered(viewing, headers):
    asker = viewing()
    assert asker.raw("GET", asker.path + "start", **headers).status == 403
    assert asker.raw("POST", asker.path + "open", b"{}", Content_Type="application/json", **headers).status == 403


def test_a_request_that_a_form_could_send_is_not_answered(viewing):
    asker = viewing()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert asker.raw("POST", asker.path + "open", b'{"path": "/"}', Content_Type=kind).status == 415


@pytest.mark.parametrize(
    "name",
    ["../server.py", "..%2fserver.py", "page/index.html", "%2e%2e/shelf.py", "C:/windows", "/etc/passwd", "x\0y"],
)
def test_only_the_files_of_the_page_are_sent(viewing, name):
    asker = viewing()
    if "\0" in name:
        name = name.replace("\0", "%00")
    answer = asker.raw("GET", asker.path + name)
    assert answer.status in (403, 404)
    assert b"import" not in answer.data


@pytest.mark.parametrize(
    "lines",
    ["GET http://{host}{path}start HTTP/1.1\nHost: {host}", "GET http://evil.example{path}start HTTP/1.1\nHost: {host}",
     "GET http://[ HTTP/1.1\nHost: {host}", "GET {path}start HTTP/1.1\nHost: {host}\nHost: evil.example",
     "GET {path}start HTTP/1.1\nHost: {host}\nOrigin: http://{host}\nOrigin: http://evil.example",
     "GET {path}start HTTP/1.1\nHost: {host}\nContent-Length: 40",
     "POST {path}open HTTP/1.1\nHost: {host}\nContent-Type: application/json\nTransfer-Encoding: chunked",
     "POST {path}open HTTP/1.1\nHost: {host}\nContent-Type: application/json\nContent-Length: 2\nContent-Length: 90"],
)  # fmt: skip
def test_what_two_readers_could_read_in_two_ways_is_refused(viewing, lines):
    """And the connection ends: what stands behind such a request is not taken for the next one."""
    asker = viewing()
    host, _, port = asker.host.partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        text = lines.format(host=asker.host, path=asker.path).replace("\n", "\r\n")
        connection.sendall(f"{text}\r\n\r\nGET {asker.path}start HTTP/1.1\r\n\r\n".encode())
        said = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1") == 1


def test_those_who_never_show_the_token_are_sent_away(viewing, monkeypatch, clean_card):
    monkeypatch.setattr(door, "MOST_STRANGERS", 5)
    asker = viewing(clean_card[0])
    host, _, port = asker.host.partition(":")
    with ExitStack() as stack:
        for _ in range(40):
            some = stack.enter_context(socket.create_connection((host, int(port))))
            some.sendall(b"GET /")
        assert asker.get("frames", **CARD, start=0, count=1).status == 200
        assert len(asker.viewer._server._strangers) <= 5
        some.settimeout(0.2)
        with pytest.raises(TimeoutError):
            some.recv(1)  # the last one may still say something


def test_whatever_goes_wrong_is_told_in_words(viewing, monkeypatch, clean_card):
    def fails(*args: object) -> None:
        raise RuntimeError("no\x1b such luck")

    asker = viewing(clean_card[0])
    monkeypatch.setattr(measure, "means", fails)
    monkeypatch.setattr(SeenRecording, "pixels", fails)
    answers = [
        asker.get("frames", **CARD, start=0, count=1),
        asker.post("traces", **CARD, shapes=[{"x": 9, "y": 9, "r": 2}]),
    ]
    for answer in answers:
        assert answer.status == 500
        assert answer.json["error"] == "a fault of miniscope-xr, not of your card: RuntimeError: no\\x1b such luck"


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"[" * 60_000, b"\xff\xfe", b'"text"'])
def test_what_is_no_request_is_refused(viewing, body):
    asker = viewing()
    answer = asker.raw("POST", asker.path + "open", body, Content_Type="application/json")
    assert answer.status in (400, 422)
    assert answer.json["error"]


def test_a_giant_request_is_refused_unread(viewing):
    asker = viewing()
    for length in (str(MOST_BODY + 1), "9" * 40, "9" * 5000, "-5", "abc"):
        answer = asker.raw("POST", asker.path + "open", b"", Content_Type="application/json", Content_Length=length)
        assert answer.status == 413
    assert asker.raw("GET", asker.path + "x" * 100_000).status in (403, 404, 414)


def test_a_slow_request_keeps_nobody_waiting(viewing, clean_card):
    asker = viewing(clean_card[0])
    host, _, port = asker.host.partition(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(20)]
    try:
        for some in slow:
            some.sendall(b"GET /")
        assert asker.get("frames", **CARD, start=0, count=1).status == 200
    finally:
        for some in slow:
            some.close()


def test_a_name_with_markup_stays_text(viewing, make_card, tmp_path):
    path, _ = make_card(frames=5)
    named = tmp_path / "<img src=x onerror=alert(1)>\x1b[2J.img"
    try:
        path.rename(named)
    except OSError:
        pytest.skip("this system has no such names")
    told = viewing().post("open", path=str(named)).json
    assert "\x1b" not in told["name"]
    for script in PAGE.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text


@pytest.mark.slow
def test_many_at_once_get_their_own_frames(viewing, make_card, open_card):
    path, _ = make_card(frames=60)
    asker = viewing(path)
    video = open_card(path).video.values

    def ask(row: int) -> bool:
        about, pixels = asker.get("frames", **CARD, start=row, count=2).frames(304, 304)
        return about["start"] == row and bool((pixels == video[row : row + 2]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, [k * 7 % 58 for k in range(120)]))


def test_only_this_computer_is_served():
    with Viewer() as viewer:
        assert viewer.url.startswith("http://127.0.0.1:")
        assert viewer._server.server_address[0] == "127.0.0.1"


def test_two_viewers_have_two_tokens():
    with Viewer() as one, Viewer() as other:
        assert one.url.rsplit("/", 2)[1] != other.url.rsplit("/", 2)[1]


@pytest.mark.slow
def test_the_server_ends_when_its_last_page_is_closed():
    with Viewer() as viewer:
        serving = threading.Thread(target=viewer.serve, args=(0.3,))
        serving.start()
        asker = Asker(viewer)
        host, _, port = asker.host.partition(":")
        with socket.create_connection((host, int(port))) as page:
            page.sendall(f"GET {asker.path}alive HTTP/1.1\r\nHost: {asker.host}\r\n\r\n".encode())
            assert b"200" in page.recv(100)
            time.sleep(0.8)
            assert serving.is_alive()
        serving.join(20)
        assert not serving.is_alive()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX does")
def test_ctrl_c_ends_the_command_with_one_line(clean_card):
    command = [sys.executable, "-m", "miniscope_xr", "view", str(clean_card[0]), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline()
        assert url.startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert said == "miniscope-xr view: interrupted\n"
    assert process.returncode == 5


@pytest.mark.skipif(os.name != "posix", reason="other systems have a screen")
@pytest.mark.parametrize(
    ("env", "user", "why"),
    [({"DISPLAY": ":0"}, 1000, ""), ({"WAYLAND_DISPLAY": "wayland-0"}, 1000, ""), ({}, 1000, "no screen"),
     ({"DISPLAY": ":0"}, 0, "as root"), ({"BROWSER": "w3m"}, 0, "")],
)  # fmt: skip
def test_no_browser_is_tried_that_could_not_show_the_page(env, user, why, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(command.sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert why in command.without_browser()
    assert bool(why) == bool(command.without_browser())


@pytest.mark.slow
def test_over_ssh_the_way_to_the_page_is_told(monkeypatch, capsys, clean_card):
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    monkeypatch.delenv("BROWSER", raising=False)
    monkeypatch.setattr(command, "without_browser", lambda: "there is no screen here")
    monkeypatch.setattr(Viewer, "serve", lambda self, ready: ready())
    assert command.view(command.Viewing(cards=[str(clean_card[0])])) == 0
    printed = capsys.readouterr()
    port = printed.out.split(":")[2].partition("/")[0]
    assert "no screen here; open this address" in printed.err
    assert f"ssh -L {port}:127.0.0.1:{port} " in printed.err


@pytest.mark.slow
def test_a_port_that_is_taken_is_told():
    with Viewer() as viewer:
        port = viewer._server.server_port
        command = [sys.executable, "-m", "miniscope_xr", "view", "--no-browser", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
