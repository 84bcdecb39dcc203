"""Every error has its words in every language of the model, with the right plural and no traps."""

import re

import babel
import pytest
from fluent.syntax import ast as syntax
from hypothesis import given
from hypothesis import strategies as st

from mmllm import bundle as bundle_lib
from mmllm.runtime import model as model_lib
from mmllm.serve import messages, problems

ISOLATION = "\u2066\u2067\u2068\u2069"
NUMBERS = {
    "limit": 500,
    "width": 12_000,
    "height": 9_000,
    "side": 10_000,
    "least": 16,
    "seconds": 5,
}
TAGS = st.sampled_from(["de", "DE-at", "zh-Hant-TW", "xx", "*", "en", "", "i-klingon", "ё", "-"])
WEIGHTS = st.sampled_from(
    ["", ";q=0", ";q=1", ";q=.5", ";q=nan", ";q=-1", ";q=9", ";x", ";q=", ";"]
)


def params_of(language: str, code: str) -> dict[str, int | str]:
    names = messages.variables(language, code) | messages.variables(language, code, "more")
    return {name: NUMBERS.get(name, name.upper()) for name in names}


def codes_in(language: str) -> list[str]:
    entries = messages.resource(language).body
    return [entry.id.name for entry in entries if isinstance(entry, syntax.Message)]


def test_there_are_the_languages_of_the_model():
    manifest, _ = bundle_lib.open_verified(model_lib.locate("nano"))
    assert set(messages.LANGUAGES) == set(manifest["languages"])
    assert len(messages.LANGUAGES) >= 12


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_no_message_is_missing_left_over_or_given_twice(language):
    assert sorted(codes_in(language)) == sorted([*problems.CATALOGUE, messages.RETRY])


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_nothing_in_a_file_fails_to_parse(language):
    assert not [e for e in messages.resource(language).body if isinstance(e, syntax.Junk)]


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_the_variables_are_the_same_in_every_language(language):
    for code in [*problems.CATALOGUE, messages.RETRY]:
        for attribute in (None, "title", "more"):
            mine = messages.variables(language, code, attribute)
            assert mine == messages.variables("en", code, attribute), (code, attribute)
        assert not messages.variables(language, code, "title")


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_every_message_comes_out_whole(language):
    for code in problems.CATALOGUE:
        params = params_of(language, code) | {"seconds": 5}
        text = messages.detail(code, language, params)
        title = messages.title(code, language)
        assert title
        assert title[-1] not in ".。"
        assert text[-1] in ".。"
        assert not set(text + title) & set("{}$?" + ISOLATION), text
        for name, value in params.items():
            if isinstance(value, str):
                assert value in text, (code, name)


@pytest.mark.parametrize("language", sorted(set(messages.LANGUAGES) - {"en"}))
def test_every_message_is_translated(language):
    untranslated = [
        code
        for code in problems.CATALOGUE
        if messages.detail(code, language, params_of(language, code))
        == messages.detail(code, "en", params_of("en", code))
    ]
    assert not untranslated


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_every_plural_has_the_forms_that_its_language_needs(language):
    rule = babel.Locale(language).plural_form
    needed = {rule(count) for count in range(1000)} - {"other"}
    for entry in messages.resource(language).body:
        value = getattr(entry, "value", None)
        for element in getattr(value, "elements", []):
            select = getattr(element, "expression", None)
            if isinstance(select, syntax.SelectExpression):
                forms = {variant.key.name for variant in select.variants}
                assert needed <= forms, entry.id.name
                assert "other" in forms


@pytest.mark.parametrize(
    ("language", "seconds", "expected"),
    [
        ("en", 1, "one second."),
        ("en", 2, "2 seconds."),
        ("de", 1, "einer Sekunde "),
        ("de", 21, "21 Sekunden "),
        ("ru", 1, "1 секунду."),
        ("ru", 3, "3 секунды."),
        ("ru", 11, "11 секунд."),
        ("ru", 21, "21 секунду."),
        ("ru", 25, "25 секунд."),
        ("pl", 1, "1 sekundę."),
        ("pl", 4, "4 sekundy."),
        ("pl", 12, "12 sekund."),
        ("pl", 21, "21 sekund."),
        ("pl", 22, "22 sekundy."),
        ("fr", 1, "1 seconde."),
        ("fr", 2, "2 secondes."),
        ("tr", 5, "5 saniye "),
        ("ja", 5, "5 秒後"),
        ("zh", 5, "5 秒后"),
    ],
)
def test_the_plural_is_right(language, seconds, expected):
    assert expected in messages.detail("queue-full", language, {"seconds": seconds})


@pytest.mark.parametrize(
    ("language", "number"), [("en", "25,000,000"), ("de", "25.000.000"), ("ru", "25\xa0000\xa0000")]
)
def test_numbers_are_written_as_the_language_does(language, number):
    assert number in messages.detail("body-too-large", language, {"limit": 25_000_000})


def test_what_may_be_added_is_added_only_when_it_is_known():
    assert messages.detail("forbidden", "en") == "You may not do this."
    assert "“admin”" in messages.detail("forbidden", "en", {"scope": "admin"})


def test_a_variable_that_is_not_given_is_an_error_and_not_a_gap():
    with pytest.raises(KeyError, match="field"):
        messages.detail("text-empty", "en")
    with pytest.raises(KeyError):
        messages.detail("no-such-code", "en")
    with pytest.raises(KeyError):
        messages.detail("text-empty", "xx", {"field": "text"})


@pytest.mark.parametrize(
    "hostile",
    ["{ $limit }", '{ "x" }', "{ internal }", "-brand", "%s %(a)s {0}", "\n.title = x", "*[other]"],
)
@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_what_a_client_wrote_stays_text(hostile, language):
    plain = messages.detail("text-empty", language, {"field": "FIELD"})
    assert messages.detail("text-empty", language, {"field": hostile}) == plain.replace(
        "FIELD", hostile
    )


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("*", "en"),
        ("xx", "en"),
        ("de", "de"),
        ("DE-at", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("en;q=0.5,ru;q=0.9", "ru"),
        ("xx,ja;q=0.1", "ja"),
        ("zh-Hant-TW", "zh"),
        ("pt-BR", "pt"),
        ("fr;q=0,es;q=0.1", "es"),
        ("fr;q=0", "en"),
        ("de;q=nonsense,it", "it"),
        ("de;q=2,it", "it"),
        (" nl ; q=1 , pl", "nl"),
        ("tr, pl", "tr"),
        ("xx,*;q=0.5,de;q=0.1", "en"),
        (",;,;q=1,,pl", "pl"),
        ("x" * 5000 + ",de", "en"),
    ],
)
def test_the_language_that_is_liked_best_is_chosen(header, language):
    assert messages.negotiate(header) == language


@given(
    st.one_of(
        st.text(), st.lists(st.tuples(TAGS, WEIGHTS)).map(lambda w: ",".join(map("".join, w)))
    )
)
def test_no_header_breaks_the_choice(header):
    assert messages.negotiate(header) in messages.LANGUAGES


def test_no_file_holds_an_isolation_mark_or_markup():
    for file in messages.LOCALES.glob("*.ftl"):
        text = file.read_text(encoding="utf-8")
        assert not set(text) & set(ISOLATION)
        assert not re.search(r"<\w", text)
