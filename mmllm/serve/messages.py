"""What errors say, in each of the model's languages: Fluent files, chosen by Accept-Language.

`problems` asks for titles and details; `locales/*.ftl` has the texts, a code's title as `.title`
and what may be added when its variables are known as `.more`.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import babel
from fluent import runtime
from fluent.syntax import ast as syntax

LOCALES = Path(__file__).parent / "locales"
LANGUAGES = tuple(sorted(file.stem for file in LOCALES.glob("*.ftl")))
DEFAULT = "en"
MAX_HEADER = 1000
"""Characters of an Accept-Language header that are looked at; browsers send under 100."""

NO_SPACE_BETWEEN_SENTENCES = ("ja", "zh")
RETRY = "retry-in"


def negotiate(accept_language: str | None) -> str:
    """The language of LANGUAGES that an Accept-Language header likes best; DEFAULT for none.

    Source: RFC 9110, section 12.5.4; what is malformed in it is passed over.
    """
    return _negotiated((accept_language or "")[:MAX_HEADER])


@functools.lru_cache(maxsize=512)
def _negotiated(header: str) -> str:
    wishes = []
    for part in header.lower().split(","):
        tag, _, weight = part.partition(";")
        quality = _quality(weight)
        if quality > 0 and tag.strip().isascii():
            wishes.append((quality, tag.strip()))
    # Stable: what is liked as much keeps its order.
    liked = [tag for _, tag in sorted(wishes, key=lambda wish: -wish[0])]
    # "*" is any language, and so are those that come after it.
    liked = liked[: liked.index("*")] if "*" in liked else liked
    return babel.negotiate_locale(liked, LANGUAGES, sep="-") or DEFAULT


def title(code: str, language: str = DEFAULT) -> str:
    """The title of an error, the same at each occurrence."""
    return _formatted(language, code, "title", {})


def detail(code: str, language: str = DEFAULT, params: Mapping[str, Any] | None = None) -> str:
    """What happened, and what helps; `seconds` among the params adds when to try again.

    Args:
      code: of `problems.CATALOGUE`.
      language: one of LANGUAGES.
      params: values of the message's variables; strings are inserted as they are.

    Raises:
      KeyError: an unknown code or language, or a variable of the message that is not given.
    """
    params = params or {}
    sentences = [_formatted(language, code, None, params)]
    if (needed := variables(language, code, "more")) and needed <= params.keys():
        sentences.append(_formatted(language, code, "more", params))
    if "seconds" in params:
        sentences.append(_formatted(language, RETRY, None, params))
    return ("" if language in NO_SPACE_BETWEEN_SENTENCES else " ").join(sentences)


@functools.cache
def variables(language: str, code: str, attribute: str | None = None) -> frozenset[str]:
    """Names of the variables of a message, or of one of its attributes; none if it has none."""
    found: set[str] = set()
    for entry in resource(language).body:
        if not isinstance(entry, syntax.Message) or entry.id.name != code:
            continue
        attributes = {a.id.name: a.value for a in entry.attributes}
        _collect(entry.value if attribute is None else attributes.get(attribute), found)
    return frozenset(found)


@functools.cache
def resource(language: str) -> Any:
    """The parsed file of a language.

    Raises:
      KeyError: not one of LANGUAGES.
    """
    if language not in LANGUAGES:
        raise KeyError(language)
    return runtime.FluentResource((LOCALES / f"{language}.ftl").read_text(encoding="utf-8"))


def _collect(node: Any, found: set[str]) -> None:
    if isinstance(node, syntax.VariableReference):
        found.add(node.id.name)
    elif isinstance(node, syntax.BaseNode):
        for child in vars(node).values():
            _collect(child, found)
    elif isinstance(node, list):
        for child in node:
            _collect(child, found)


@functools.cache
def _bundle(language: str) -> runtime.FluentBundle:
    # Isolation marks are for text of mixed directions; all twelve languages run one way.
    bundle = runtime.FluentBundle([language], use_isolating=False)
    bundle.add_resource(resource(language))
    return bundle


def _formatted(language: str, code: str, attribute: str | None, params: Mapping[str, Any]) -> str:
    bundle = _bundle(language)
    message = bundle.get_message(code)
    pattern = message.value if attribute is None else message.attributes[attribute]
    missing = variables(language, code, attribute) - params.keys()
    if missing or pattern is None:
        raise KeyError(f"message {code!r} needs {', '.join(sorted(missing))}")
    text, _ = bundle.format_pattern(pattern, dict(params))
    return str(text)


def _quality(weight: str) -> float:
    name, _, value = weight.partition("=")
    if not weight.strip():
        return 1.0
    try:
        quality = float(value)
    except ValueError:
        return 0.0
    return quality if name.strip().lower() == "q" and 0 <= quality <= 1 else 0.0
