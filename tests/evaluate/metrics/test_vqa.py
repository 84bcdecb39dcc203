"""VQA accuracy against hand-worked scores and outputs of the official normaliser."""

import pytest

from mmllm.evaluate.metrics.vqa import normalise_answer, vqa_accuracy

# Written by the official program (GT-Vision-Lab/VQA, vqaEval.py).
OFFICIAL = {
    "Yes.": "yes",
    "two": "2",
    "none": "0",
    "a dog": "dog",
    "The  Red\tbus\n": "red bus",
    "10,000": "10000",
    "3.5": "3.5",
    "red, white": "red white",
    "black/white": "black white",
    "t-shirt": "t shirt",
    "dont": "don't",
    "Whats up?": "what's up",
    "man's": "man's",
    "somebody'd": "somebodyd",
    "hello !": "hello",
    "1,5/2": "152",
}


@pytest.mark.parametrize("answer", OFFICIAL)
def test_answers_are_normalised_as_the_challenge_does(answer: str):
    assert normalise_answer(answer) == OFFICIAL[answer]


@pytest.mark.parametrize(
    ("matching", "accuracy"),
    # Leaving out a matching answer leaves one less: 2 of 10 agree gives (2 * 1/3 + 8 * 2/3) / 10.
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_ten_answers_by_hand(matching: int, accuracy: float):
    answers = ["Red."] * matching + [f"other {i}" for i in range(10 - matching)]
    assert vqa_accuracy(["red"], [answers]).tolist() == pytest.approx([accuracy])


def test_one_answer_must_be_met():
    assert vqa_accuracy(["Two", "3", ""], [["2"], ["2"], ["2"]]).tolist() == [1.0, 0.0, 0.0]


def test_the_order_of_answers_does_not_matter():
    assert vqa_accuracy(["a cat"], [["cat", "dog", "cat"]]) == vqa_accuracy(
        ["a cat"], [["dog", "cat", "cat"]]
    )


def test_questions_need_answers():
    with pytest.raises(ValueError, match=r"references\[0\] must hold at least one answer"):
        vqa_accuracy(["a"], [[]])
    with pytest.raises(ValueError, match=r"references\[0\] must hold at least one answer"):
        vqa_accuracy(["a"], ["a"])
    with pytest.raises(ValueError, match="must be parallel, got 2 and 1"):
        vqa_accuracy(["a", "b"], [["a"]])
