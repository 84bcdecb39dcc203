"""Credentials: each kind that is right passes, and each way around them that is known does not."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from mmllm.serve import problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.guard import auth

SECRET = "s" * 32
KEY, ENTRY = auth.new_key("shop", ("caption", "ocr"))
CLAIMS = {"sub": "alice", "scope": "caption vqa fly"}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [ENTRY]}))
    return path


def authenticator(**overrides) -> auth.Authenticator:
    return auth.Authenticator(settings_lib.Settings(**overrides))


def identify(
    checker: auth.Authenticator, authorization: str | None = None, api_key: str | None = None
) -> auth.Caller:
    return asyncio.run(checker.identify(authorization, api_key))


def refused(checker: auth.Authenticator, *credentials: str | None) -> str:
    with pytest.raises(problems.Problem) as error:
        identify(checker, *credentials)
    return error.value.code


def claims(**changes) -> dict:
    made = {**CLAIMS, "exp": time.time() + 60, **changes}
    return {name: value for name, value in made.items() if value is not None}


def token(key: object = SECRET, algorithm: str = "HS256", **changes) -> str:
    return jwt.encode(claims(**changes), key, algorithm)


def forged(header: dict, body: dict, key: bytes | None) -> str:
    """A token by hand, which no library would make."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    signed = f"{part(json.dumps(header).encode())}.{part(json.dumps(body).encode())}"
    made = b"" if key is None else hmac.digest(key, signed.encode(), hashlib.sha256)
    return f"{signed}.{part(made)}"


def public(private: object) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_where_nothing_is_configured_everybody_is_anonymous():
    """OpenAI's client always sends a key: it must not be refused where there are none."""
    checker = authenticator()
    assert identify(checker).kind == "anonymous"
    assert identify(checker, "Bearer sk-anything", "x").scopes == set(auth.SCOPES)


def test_a_key_passes_in_either_header(keys_file):
    checker = authenticator(api_keys_file=keys_file)
    expected = auth.Caller("shop", frozenset({"caption", "ocr"}), "key")
    assert identify(checker, f"Bearer {KEY}") == expected
    assert identify(checker, f"bearer  {KEY} ") == expected
    assert identify(checker, None, KEY) == expected
    assert identify(checker, f"Bearer {KEY}", KEY) == expected


def test_without_credentials_a_caller_may_nothing_where_there_are_keys(keys_file):
    caller = identify(authenticator(api_keys_file=keys_file))
    assert not caller.scopes
    caller = identify(authenticator(api_keys_file=keys_file, anonymous_scopes=("caption",)))
    assert caller.scopes == {"caption"}


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Token {KEY}", "Bearer shop.x", "Bearer \x00"],
    ids=["empty", "no key", "blank", "no scheme", "basic", "token", "wrong", "null"],
)
def test_a_wrong_credential_is_refused_and_not_anonymous(keys_file, authorization):
    checker = authenticator(api_keys_file=keys_file, anonymous_scopes=("caption",))
    assert refused(checker, authorization) == "key-invalid"


@pytest.mark.parametrize("authorization", ["Bearer shop.other", "Bearer "])
def test_two_credentials_do_not_make_one(keys_file, authorization):
    checker = authenticator(api_keys_file=keys_file)
    assert refused(checker, authorization, KEY) in ("credentials-conflict", "key-invalid")


def test_a_token_passes_with_the_scopes_that_exist():
    caller = identify(authenticator(jwt_secret=SECRET), f"Bearer {token()}")
    assert caller == auth.Caller("alice", frozenset({"caption", "vqa"}), "token")
    caller = identify(
        authenticator(jwt_secret=SECRET), f"Bearer {token(scope=None, scopes=['ocr', 5, None])}"
    )
    assert caller.scopes == {"ocr"}


def test_keys_and_tokens_live_side_by_side(keys_file):
    checker = authenticator(api_keys_file=keys_file, jwt_secret=SECRET)
    assert identify(checker, f"Bearer {token()}").kind == "token"
    assert identify(checker, f"Bearer {KEY}").kind == "key"
    assert refused(checker, None, token()) == "key-invalid"  # a token is no API key


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": time.time() - 3600}, "token-expired"),
        ({"exp": None}, "token-invalid"),
        ({"exp": "soon"}, "token-invalid"),
        ({"exp": 1e400}, "token-invalid"),
        ({"nbf": time.time() + 3600}, "token-invalid"),
        ({"sub": None}, "token-invalid"),
        ({"sub": 5}, "token-invalid"),
        ({"sub": "a\nb"}, "token-invalid"),
        ({"sub": "a" * 1000}, "token-invalid"),
        ({"scope": 5}, "token-invalid"),
        ({"scope": {"caption": 1}}, "token-invalid"),
        ({"iss": "other"}, "token-invalid"),
        ({"iss": None}, "token-invalid"),
        ({"aud": "other"}, "token-invalid"),
        ({"aud": None}, "token-invalid"),
        ({}, None),
    ],
)
def test_each_claim_is_checked(changes, code):
    checker = authenticator(jwt_secret=SECRET, jwt_issuer="us", jwt_audience="mmllm")
    body = claims(**{"iss": "us", "aud": "mmllm"} | changes)
    text = "Bearer " + forged({"alg": "HS256", "typ": "JWT"}, body, SECRET.encode())
    if code is None:
        assert identify(checker, text).name == "alice"
    else:
        assert refused(checker, text) == code


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "HS512"},
        {"alg": ["HS256"]},
        {"alg": None},
        {},
        {"alg": "HS256", "crit": ["exp"], "exp": 1},
        {"alg": "RS256"},
    ],
)
def test_the_header_does_not_choose_how_it_is_checked(header):
    checker = authenticator(jwt_secret=SECRET)
    for key in (None, SECRET.encode()):
        text = "Bearer " + forged(header, claims(), key)
        assert refused(checker, text) == "token-invalid"


def test_a_token_signed_by_another_or_changed_is_refused():
    checker = authenticator(jwt_secret=SECRET)
    head, body, signature = token().split(".")
    other = token(key="t" * 32).split(".")
    for text in (
        ".".join(other),
        f"{head}.{other[1]}.{signature[:-4]}AAAA",
        f"{head}.{body}.",
        f"{head}.{token(sub='bob').split('.')[1]}.{signature}",
        "..",
        "a.b.c",
        f"{'A' * 10_000}.b.c",
    ):
        assert refused(checker, f"Bearer {text}") == "token-invalid"


@pytest.mark.parametrize(
    ("algorithm", "private"),
    [
        ("RS256", rsa.generate_private_key(65537, 2048)),
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    ],
)
def test_a_public_key_checks_tokens_and_is_no_secret(tmp_path, algorithm, private):
    pem = tmp_path / "public.pem"
    pem.write_bytes(public(private))
    checker = authenticator(jwt_public_key_file=pem)
    assert identify(checker, f"Bearer {token(private, algorithm)}").name == "alice"
    # Whoever knows the public key signs with it as if it were a secret.
    text = forged({"alg": "HS256", "typ": "JWT"}, claims(), pem.read_bytes())
    assert refused(checker, f"Bearer {text}") == "token-invalid"
    relabelled = forged({"alg": algorithm, "typ": "JWT"}, claims(), pem.read_bytes())
    assert refused(checker, f"Bearer {relabelled}") == "token-invalid"


def test_keys_that_do_not_fit_are_told_at_the_start(tmp_path):
    pem = tmp_path / "key.pem"
    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for content in (b"", b"no key", private):
        pem.write_bytes(content)
        with pytest.raises(ValueError, match="must hold a PEM public key"):
            authenticator(jwt_public_key_file=pem)
    with pytest.raises(ValueError, match="as long as the hash of HS512"):
        authenticator(jwt_secret=SECRET, jwt_algorithms=("HS512",))
    with pytest.raises(FileNotFoundError):
        authenticator(api_keys_file=tmp_path / "missing")


CHECKER = authenticator(jwt_secret=SECRET)


@settings(max_examples=200)
@given(st.text() | st.lists(st.text(), min_size=3, max_size=3).map(".".join))
def test_any_text_is_refused_with_a_problem(text: str):
    assert refused(CHECKER, f"Bearer {text}") in ("key-invalid", "token-invalid")


def test_a_scope_lets_pass_and_its_lack_is_told_by_who_asks():
    auth.require(auth.Caller("a", frozenset({"ocr"}), "key"), "ocr")
    for kind, code in (("anonymous", "unauthorized"), ("key", "forbidden"), ("token", "forbidden")):
        with pytest.raises(problems.Problem) as error:
            auth.require(auth.Caller("a", frozenset({"ocr"}), kind), "admin")
        assert error.value.code == code
