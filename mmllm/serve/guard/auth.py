"""Who calls and what they may: API keys, JSON web tokens, or nobody in particular.

    Authorization: Bearer KEY-or-TOKEN        or        X-API-Key: KEY

`admission` asks for each request. Where neither keys nor tokens are configured, credentials are not
looked at and every caller is anonymous.
"""

import re
from typing import Any, NamedTuple

import jwt
import structlog

from mmllm.serve import problems
from mmllm.serve import settings as settings_lib
from mmllm.serve.guard import keys

SCOPES = settings_lib.SCOPES
ANONYMOUS = "anonymous"
MAX_TOKEN = 8192  # characters
LEEWAY_S = 10  # between two clocks
_SUBJECT = re.compile(r"[\w.@:|/+-]{1,128}", re.ASCII)

new_key = keys.new_key


class Caller(NamedTuple):
    """Who calls.

    Attributes:
      name: of the key, or the token's subject.
      scopes: what it may, of SCOPES.
      kind: "key", "token" or "anonymous".
    """

    name: str
    scopes: frozenset[str]
    kind: str


class Authenticator:
    """Tells callers by their credentials.

    Args:
      settings: keys, tokens and what anonymous callers may.
      recheck_s: seconds between looks at whether the file of keys has changed.

    Raises:
      OSError: a file that cannot be read.
      ValueError: a damaged file of keys, or a public key that does not fit the algorithms.
    """

    def __init__(self, settings: settings_lib.Settings, recheck_s: float = keys.RECHECK_S) -> None:
        self._anonymous = Caller(ANONYMOUS, frozenset(settings.anonymous_scopes), ANONYMOUS)
        self._ring = None
        if settings.api_keys_file is not None:
            self._ring = keys.KeyRing(settings.api_keys_file, recheck_s)
        self._tokens = None
        if settings.jwt_secret is not None or settings.jwt_public_key_file is not None:
            self._tokens = Tokens(settings)

    async def identify(self, authorization: str | None, api_key: str | None) -> Caller:
        """Finds out who calls, and puts it on the log lines of the request.

        Args:
          authorization: the header Authorization.
          api_key: the header X-API-Key.

        Raises:
          Problem: "key-invalid", "token-invalid", "token-expired", "credentials-conflict", or
            "queue-full" where too many unknown keys come at once.
        """
        caller = await self._identified(authorization, api_key)
        structlog.contextvars.bind_contextvars(caller=caller.name, caller_kind=caller.kind)
        return caller

    async def _identified(self, authorization: str | None, api_key: str | None) -> Caller:
        if self._ring is None and self._tokens is None:
            return self._anonymous
        bearer = None if authorization is None else _bearer(authorization)
        if bearer is not None and api_key is not None and bearer != api_key:
            raise problems.Problem("credentials-conflict")
        credential = api_key if bearer is None else bearer
        if credential is None:
            return self._anonymous
        if self._tokens is not None and bearer is not None and bearer.count(".") == 2:
            return self._tokens.caller(bearer)
        entry = None if self._ring is None else await self._ring.find(credential)
        if entry is None:
            raise problems.Problem("key-invalid")
        return Caller(entry.id, entry.scopes, "key")


class Tokens:
    """Checks JSON web tokens.

    Args:
      settings: the secret or public key, algorithms, issuer and audience.
    """

    def __init__(self, settings: settings_lib.Settings) -> None:
        if settings.jwt_secret is not None:
            key = settings.jwt_secret.get_secret_value().encode()
        elif settings.jwt_public_key_file is not None:
            key = settings.jwt_public_key_file.read_bytes()
        else:
            raise ValueError("tokens need jwt_secret or jwt_public_key_file")
        # The settings name algorithms of one kind only, so a public key never serves as a secret.
        self._keys = {name: _prepared(name, key) for name in settings.jwt_algorithms}
        self._keys = {name: made for name, made in self._keys.items() if made is not None}
        if not self._keys:
            algorithms = ", ".join(settings.jwt_algorithms)
            if settings.jwt_secret is not None:
                raise ValueError(f"jwt_secret must be as long as the hash of {algorithms}")
            raise ValueError(
                f"jwt_public_key_file {str(settings.jwt_public_key_file)!r} must hold a PEM "
                f"public key of {algorithms}"
            )
        self._issuer, self._audience = settings.jwt_issuer, settings.jwt_audience

    def caller(self, token: str) -> Caller:
        """Who a token speaks for.

        Raises:
          Problem: "token-invalid" or "token-expired".
        """
        try:
            if len(token) > MAX_TOKEN:
                raise jwt.InvalidTokenError
            algorithm = jwt.get_unverified_header(token).get("alg")
            if not isinstance(algorithm, str) or algorithm not in self._keys:
                raise jwt.InvalidAlgorithmError
            required = ["exp", "sub", *(["iss"] if self._issuer else [])]
            claims = jwt.decode(
                token,
                self._keys[algorithm],
                algorithms=[algorithm],
                options={"require": [*required, *(["aud"] if self._audience else [])]},
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
            )
        except jwt.ExpiredSignatureError:
            raise problems.Problem("token-expired") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise problems.Problem("token-invalid") from None
        if not _SUBJECT.fullmatch(claims["sub"]):
            raise problems.Problem("token-invalid")
        return Caller(claims["sub"], _scopes(claims), "token")


def require(caller: Caller, scope: str) -> None:
    """Lets a caller pass who may do something.

    Raises:
      Problem: "unauthorized" for an anonymous caller, "forbidden" for another.
    """
    if scope in caller.scopes:
        return
    if caller.kind == ANONYMOUS:
        raise problems.Problem("unauthorized")
    raise problems.Problem("forbidden", scope=scope)


def _bearer(authorization: str) -> str:
    scheme, _, credential = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise problems.Problem("key-invalid")
    return credential.strip()


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """What a token allows: `scope` as RFC 8693 has it, or a list `scopes`."""
    told = claims.get("scope", claims.get("scopes", []))
    words = told.split(" ") if isinstance(told, str) else told
    if not isinstance(words, list):
        raise problems.Problem("token-invalid")
    return frozenset(word for word in words if isinstance(word, str) and word in SCOPES)


def _prepared(algorithm: str, key: bytes) -> Any:
    """A key as the algorithm takes it, or None where it is of another kind."""
    try:
        made = jwt.get_algorithm_by_name(algorithm).prepare_key(key)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if algorithm in settings_lib.HMAC and len(key) * 8 < int(algorithm[2:]):
        return None  # RFC 7518, section 3.2
    return None if hasattr(made, "private_bytes") else made
