import base64
import hashlib
import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from mmllm.serve.api import pages
from tests.serve import web

LOADED = re.compile(r"""(?:src|href)=["']([^"'#]+)["']""")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with web.serving(tmp_path_factory.mktemp("pages")) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_loads_only_what_the_service_has(client: TestClient, path: str):
    page = client.get(path)
    assert page.headers["content-type"].startswith("text/html")
    for place in LOADED.findall(page.text):
        assert "//" not in place
        assert client.get("/" + place.lstrip("/")).status_code == 200


def test_the_page_has_nothing_inline(client: TestClient):
    page = client.get("/")
    assert not re.search(r"<style|style=|<script>| on\w+=|javascript:", page.text)
    policy = page.headers["content-security-policy"]
    assert policy == pages.PAGE_POLICY
    assert "unsafe" not in policy


def test_the_page_may_tell_its_own_service_where_it_comes_from(client: TestClient):
    assert client.get("/").headers["referrer-policy"] == "same-origin"  # or its Origin is "null"


def test_the_page_sets_text_and_never_markup():
    script = (pages.FOLDER / "page.js").read_text(encoding="utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script


def test_the_one_script_of_the_docs_is_named_by_its_hash(client: TestClient):
    page = client.get("/docs")
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert f"script-src 'self' 'sha256-{digest}'" in policy


def test_files_of_the_page_have_types_and_stay_in_their_folder(client: TestClient):
    for name, kind in (("page.js", "javascript"), ("page.css", "css"), ("icon.svg", "svg")):
        answer = client.get(f"/page/{name}")
        assert kind in answer.headers["content-type"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("/page/../pages.py", "/page/%2e%2e/pages.py", "/page/..%2fpages.py", "/page/"):
        assert client.get(path).status_code == 404


def test_behind_a_prefix_the_docs_ask_under_it(tmp_path):
    with web.serving(tmp_path, root_path="/vision") as client:
        assert "'/vision/openapi.json'" in client.get("/docs").text


def test_page_and_docs_may_be_off(tmp_path):
    with web.serving(tmp_path, page=False, docs=False) as client:
        for path in ("/", "/page/page.js", "/docs", "/openapi.json", "/docs-files/favicon.png"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
