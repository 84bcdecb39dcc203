"""Ways around keys and tokens, each over every route that the service has."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from starlette.testclient import TestClient

from mmllm.serve import settings as settings_lib
from mmllm.serve.guard import keys
from tests.serve import web

SECRET = "a secret of the service's own, as long as the longest algorithm asks for"
OPEN = {"/healthz/live", "/healthz/ready", "/healthz/startup", "/metrics"}
SCOPE_OF = {
    "/v1/caption": "caption",
    "/v1/ocr": "ocr",
    "/v1/vqa": "vqa",
    "/v1/embed/image": "embed",
    "/v1/embed/text": "embed",
    "/v1/search": "search",
    "/v1/index/{id}": "index",
    "/v1/admin/reload": "admin",
}


@pytest.fixture(scope="module")
def some_key() -> tuple[str, dict[str, Any]]:
    return keys.new_key("some", ("caption",))


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, some_key: tuple[str, dict[str, Any]]
) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("bypass")
    file = folder / "keys.json"
    file.write_text(json.dumps({"keys": [some_key[1]]}))
    with web.serving(folder, api_keys_file=file, jwt_secret=SECRET) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(client: TestClient) -> list[tuple[str, str]]:
    """Each method and path of the document that has to be guarded."""
    paths = client.get("/openapi.json").json()["paths"]
    found = [(m.upper(), path) for path, methods in paths.items() for m in methods]
    return [(method, path) for method, path in found if path not in OPEN]


def asked(client: TestClient, method: str, path: str, headers: Any) -> int:
    filled = path.replace("{id}", "a").replace("{model}", "nano")
    return client.request(method, filled, headers=headers).status_code


def token(claims: dict[str, Any] | None = None, key: Any = SECRET, **how: Any) -> str:
    made = {"sub": "me", "exp": int(time.time()) + 60, "scope": " ".join(settings_lib.SCOPES)}
    made = {name: value for name, value in {**made, **(claims or {})}.items() if value is not None}
    return jwt.encode(made, key, **{"algorithm": "HS256", **how})


def unsigned() -> str:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    claims = {"sub": "me", "exp": int(time.time()) + 60, "scope": "admin caption"}
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


def test_a_good_token_opens_everything(client: TestClient, guarded: list[tuple[str, str]]):
    headers = {"Authorization": f"Bearer {token()}"}
    assert len(guarded) >= 13
    for method, path in guarded:
        assert asked(client, method, path, headers) not in (401, 403, 500), path


def bad_credentials() -> dict[str, dict[str, str]]:
    def bearer(value: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {value}"}

    head, body, signature = token().split(".")
    other = token({"sub": "root"}).split(".")
    return {
        "none at all": {},
        "an empty bearer": {"Authorization": "Bearer "},
        "an empty key": {"X-API-Key": ""},
        "a basic login": {"Authorization": "Basic " + base64.b64encode(b"some:key").decode()},
        "a word": bearer("admin"),
        "an unknown key": {"X-API-Key": "nobody.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
        "a wrong secret of a known key": {"X-API-Key": "some." + "a" * 43},
        "a key's id alone": {"X-API-Key": "some"},
        "a key with a null byte": {"X-API-Key": "some.%00"},
        "an unsigned token": bearer(unsigned()),
        "a token of another secret": bearer(token(key="another secret that is long enough, too")),
        "a token whose claims were swapped": bearer(f"{head}.{other[1]}.{signature}"),
        "a token without its signature": bearer(f"{head}.{body}."),
        "an expired token": bearer(token({"exp": int(time.time()) - 3600})),
        "a token without end": bearer(token({"exp": None})),
        "a token of another algorithm": bearer(token(algorithm="HS512")),
        "a token that names its own key": bearer(
            token(headers={"jwk": {"kty": "oct", "k": "AAAA"}}, key="k" * 40)
        ),
        "a token with a path as key id": bearer(token(headers={"kid": "/dev/null"}, key="\0" * 40)),
        "a very long token": bearer("a." * 9000 + "a"),
        "a token as key": {"X-API-Key": token()},
    }


@pytest.mark.parametrize("name", list(bad_credentials()))
def test_bad_credentials_open_nothing(
    client: TestClient, guarded: list[tuple[str, str]], name: str
):
    headers = bad_credentials()[name]
    for method, path in guarded:
        assert asked(client, method, path, headers) in (400, 401), path


def test_a_token_for_one_scope_opens_no_other(client: TestClient, guarded: list[tuple[str, str]]):
    for scope in settings_lib.SCOPES:
        headers = {"Authorization": f"Bearer {token({'scope': scope})}"}
        for method, path in guarded:
            if path in SCOPE_OF:
                refused = asked(client, method, path, headers) == 403
                assert refused == (SCOPE_OF[path] != scope), (scope, path)


@pytest.mark.parametrize(
    "scope", ["ADMIN", "admin,caption", "*", "admin\u00a0", "", ["Admin"], 7, {}]
)
def test_a_scope_that_is_not_spelled_exactly_is_none(client: TestClient, scope: Any):
    headers = {"Authorization": f"Bearer {token({'scope': scope})}"}
    assert asked(client, "POST", "/v1/admin/reload", headers) in (401, 403)


@pytest.mark.parametrize(
    "path",
    [
        "//v1/info",
        "/V1/info",
        "/v1//info",
        "/v1/info/",
        "/v1/%69nfo",
        "/v1/info;x",
        "/healthz/../v1/info",
        "/healthz/%2e%2e/v1/info",
        "/page/../v1/info",
        "/metrics/../v1/info",
    ],
)
def test_no_spelling_of_a_path_is_a_way_around(client: TestClient, path: str):
    assert client.get(path).status_code in (401, 404)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"X-Original-URL": "/healthz/live"},
        {"X-Rewrite-URL": "/healthz/live"},
        {"X-HTTP-Method-Override": "GET"},
        {"X-Remote-User": "admin"},
        {"Cookie": "session=admin"},
        {"Origin": "http://test"},
    ],
)
def test_no_header_of_a_proxy_or_framework_is_believed(
    client: TestClient, guarded: list[tuple[str, str]], headers: dict[str, str]
):
    for method, path in guarded:
        assert asked(client, method, path, headers) == 401, path


def test_credentials_in_the_query_are_not_looked_at(client: TestClient, some_key: Any):
    for name in ("api_key", "key", "access_token", "token", "X-API-Key"):
        assert client.get("/v1/info", params={name: some_key[0]}).status_code == 401


def test_a_refusal_tells_nothing_about_keys(client: TestClient):
    known = client.get("/v1/info", headers={"X-API-Key": "some." + "a" * 43}).json()
    unknown = client.get("/v1/info", headers={"X-API-Key": "nobody." + "a" * 43}).json()
    for answer in (known, unknown):
        answer.pop("request_id")
    assert known == unknown
