"""The caption tokenizer against outputs of the Stanford tokenizer that COCO evaluation uses."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmllm.evaluate.metrics.tokenize import DROPPED, tokenize

# Written by Stanford CoreNLP 3.4.1 (PTBTokenizer -preserveLines -lowerCase), punctuation removed
# by coco-caption's list.
STANFORD = {
    "A man riding a wave on top of a surfboard.": "a man riding a wave on top of a surfboard",
    "A man's best friend; it's a \"dog\" -- isn't it?": (
        "a man 's best friend it 's a dog is n't it"
    ),
    "Smiling face with heart-eyes (red), 3.5 x 4 cm...": (
        "smiling face with heart-eyes -lrb- red -rrb- 3.5 x 4 cm"
    ),
    "The U.S. flag, Mr. Smith's T-shirt & rock 'n' roll": (
        "the u.s. flag mr. smith 's t-shirt & rock 'n' roll"
    ),
    "cannot gonna wanna dont can't won't I'm they've he'd we'll": (
        "can not gon na wan na dont ca n't wo n't i 'm they 've he 'd we 'll"
    ),
    "50% off! $5.00 only #1 @home http://example.com/a?b=c foo@bar.com": (
        "50 % off $ 5.00 only # 1 @home http://example.com/a?b=c foo@bar.com"
    ),
    "flag: St. Vincent & Grenadines": "flag st. vincent & grenadines",
    "1,000 people at 10:30 a.m. on 12/25/2020": "1,000 people at 10:30 a.m. on 12/25/2020",
    "drapeau : Côte d’Ivoire, l'homme “quoted” ‘single’ — dash – en": (
        "drapeau côte d’ivoire l'homme quoted single dash en"
    ),
    "keycap: * O'Neil ma'am o'clock '90s 'twas": "keycap * o'neil ma'am o'clock '90s 't was",
    "ten 1/2 cups ½ teaspoon 3rd 20°": "ten 1/2 cups 1/2 teaspoon 3rd 20 °",
    "the dogs' tails, James' hat; students'.": "the dogs tails james hat students",
    "rock-n-roll mother-in-law re-use 5-year-old": "rock-n-roll mother-in-law re-use 5-year-old",
    'A red double-decker bus "15" drives by!': "a red double-decker bus 15 drives by",
    "Don’t stick it there. A plumber’s wrench.": "do n't stick it there a plumber 's wrench",
    "A Jack-o’-lantern.": "a jack-o lantern",
    "A European coin (0.10 €).": "a european coin -lrb- 0.10 $ -rrb-",
    "Boom!!!": "boom !!!",
    "テスト é ñ ü": "テスト é ñ ü",
}


@pytest.mark.parametrize("text", STANFORD)
def test_it_splits_as_the_stanford_tokenizer(text: str):
    assert " ".join(tokenize(text)) == STANFORD[text]


def test_blank_text_has_no_tokens():
    assert tokenize("") == []
    assert tokenize(" . , \n ...") == []


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_lower_case_tokens_without_punctuation(text: str):
    tokens = tokenize(text)
    assert all(token and not set(token) & set(" \n\t") for token in tokens)
    assert not set(tokens) & DROPPED


@settings(deadline=None)
@given(st.lists(st.sampled_from(["red", "bus", "cat", "two"]), max_size=8))
def test_plain_words_come_back_as_they_are(words: list[str]):
    assert tokenize(" ".join(words)) == words
