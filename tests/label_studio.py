"""A real Label Studio server on 127.0.0.1 for integration tests (see `tests.environments`)."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.environments import ENVS, LABEL_STUDIO, label_studio_program, made_once

ADMIN, PASSWORD = "ann@example.com", "testpass-1"


@dataclass(frozen=True, slots=True)
class Running:
    """A running server; `token` is the administrator's legacy token."""

    url: str
    token: str


def _environment(data: Path, token: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("LABEL_STUDIO", "PYTHON", "VIRTUAL_ENV"))}
    return plain | {
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "DJANGO_DB": "sqlite",
        "LABEL_STUDIO_USERNAME": ADMIN,
        "LABEL_STUDIO_PASSWORD": PASSWORD,
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "COLLECT_ANALYTICS": "0",
        "LATEST_VERSION_CHECK": "0",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }


def migrated() -> tuple[Path, str]:
    """A data folder whose database is migrated, and its token; made once, then copied."""
    folder = ENVS / f"label-studio-{LABEL_STUDIO}-data"

    def make() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        token = secrets.token_hex(20)
        with _serving(folder, token):
            (folder / "token").write_text(token)

    made_once(folder, make)
    return folder, (folder / "token").read_text()


@contextmanager
def label_studio(data: Path) -> Iterator[Running]:
    """Serve from a fresh copy of the migrated data folder; stopped by its pid on leaving."""
    folder, token = migrated()
    shutil.copytree(folder, data, dirs_exist_ok=True)
    with _serving(data, token) as url:
        yield Running(url, token)


@contextmanager
def _serving(data: Path, token: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--internal-host", "127.0.0.1", "--port", str(port)]
    command = [str(label_studio_program()), "start", "--no-browser", *where]
    log = (data / "server.log").open("w")
    server = subprocess.Popen(command, env=_environment(data, token), stdin=subprocess.DEVNULL, stdout=log,
                              stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, server, data / "server.log")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        log.close()


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise AssertionError(f"Label Studio ended:\n{log.read_text()[-2000:]}")
        try:
            if requests.get(f"{url}/health", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.5)
    raise AssertionError(f"Label Studio did not start in {seconds:.0f} s:\n{log.read_text()[-2000:]}")


def second_user(running: Running, email: str) -> str:
    """Sign a second user up by invitation; returns that user's legacy token."""
    admin = {"Authorization": f"Token {running.token}"}
    invite = requests.get(f"{running.url}/api/invite", headers=admin, timeout=30).json()["invite_url"]
    session = requests.Session()
    page = session.get(running.url + invite, timeout=30)
    form = {
        "email": email,
        "password": PASSWORD,
        "csrfmiddlewaretoken": session.cookies["csrftoken"],
        "allow_newsletters": "false",
    }
    answered = session.post(page.url, data=form, headers={"Referer": page.url}, timeout=30)
    assert answered.ok, answered.text[:500]
    headers = {"X-CSRFToken": session.cookies["csrftoken"], "Referer": running.url}
    reset = session.post(f"{running.url}/api/current-user/reset-token", headers=headers, timeout=30)
    return str(reset.json()["token"])


@contextmanager
def browsing(url: str, email: str = ADMIN) -> Iterator[Any]:
    """A page of a headless browser, logged in as somebody."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the browser test needs Chromium: apt-get install chromium")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=quiet)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{url}/user/login/")
        page.fill("input[name=email]", email)
        page.fill("input[name=password]", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_load_state("networkidle")
        yield page
        browser.close()
