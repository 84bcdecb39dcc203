"""VQA accuracy with the answer normaliser of the VQA challenge.

Answers come from the runtime, references from the corpora; `mmllm.evaluate.tasks` calls these.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

AGREEING_ANSWERS = 3  # people of ten whose agreement makes an answer wholly right

_PUNCTUATION = tuple(';/[]"{}()=+\\_-><@`,?!')
_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_ARTICLES = frozenset(("a", "an", "the"))
_DIGITS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't "
    "mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've "
    "should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've "
    "someone'll someone's something'd something'd've something'll that's there'd there'd've "
    "there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't "
    "what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's "
    "who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've "
    "you'd you'd've you'll you're you've"
).split()
# The table restores one lost apostrophe; the first entry is an oddity of the official one.
_RESTORED = {"somebody'd": "somebodyd"} | {
    form[:i] + form[i + 1 :]: form
    for form in _CONTRACTIONS
    for i, character in enumerate(form)
    if character == "'"
}


def normalise_answer(answer: str) -> str:
    """Brings an answer to the form in which the VQA challenge compares answers.

    Punctuation goes (or becomes a space between letters), full stops go unless a digit follows,
    number words to ten become digits, articles go, lost apostrophes return, letters are lower case.

    Source: GT-Vision-Lab/VQA, vqaEval.py (processPunctuation, processDigitArticle).
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    # "1,000" must become "1000", and then the official program drops all marks of the answer.
    every_mark_vanishes = _NUMBER_WITH_COMMA.search(text) is not None
    stripped = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if beside_space or every_mark_vanishes else " ")
    words = [_DIGITS.get(word, word) for word in _PERIOD.sub("", stripped).lower().split()]
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, "n"]:
    """Accuracy of each answer against the answers people gave.

    With several answers a question: min(matches / 3, 1), averaged over leaving each answer out.
    With one answer: 1 or 0. Both sides are always normalised; the official program leaves answers
    on which all people agree as they are, which differs only for such answers in another form.

    Args:
      predictions: one answer a question.
      references: ten answers a question in VQAv2; one in made corpora.

    Raises:
      ValueError: sequences that are not parallel, or a question without answers.

    Source: Antol et al. 2015, arXiv:1505.00468; visualqa.org/evaluation.
    """
    if len(predictions) != len(references):
        raise ValueError(
            f"predictions and references must be parallel, got {len(predictions)} and "
            f"{len(references)}"
        )
    scores = []
    for index, (prediction, answers) in enumerate(zip(predictions, references, strict=True)):
        if not answers or isinstance(answers, str):
            raise ValueError(f"references[{index}] must hold at least one answer, got {answers!r}")
        ours = normalise_answer(prediction)
        matches = [normalise_answer(answer) == ours for answer in answers]
        if len(matches) == 1:
            scores.append(float(matches[0]))
            continue
        # Each person in turn is left out, so that people's own answers could be scored alike.
        left = [min((sum(matches) - match) / AGREEING_ANSWERS, 1.0) for match in matches]
        scores.append(sum(left) / len(left))
    return np.array(scores)
