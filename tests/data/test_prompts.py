"""The token sequences that training and runtime share."""

from mmllm.data import prompts


class Letters:
    """A vocabulary of one token a letter, with task tokens above them."""

    eos_id = 3

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def task_id(self, task: str) -> int:
        return {"cap:de": 1000, "vqa": 1001, "ans": 1002, "emb": 1003}[task]


def test_a_caption_is_asked_by_its_language_alone():
    assert prompts.caption(Letters(), "de") == [1000]


def test_a_question_stands_between_its_task_and_the_answer_in_lower_case():
    assert prompts.question(Letters(), " AB ") == [1001, ord("a"), ord("b"), 1002]


def test_a_text_is_lower_cased_closed_and_cut():
    assert prompts.embedding(Letters(), "AbC") == [1003, ord("a"), ord("b"), ord("c"), 3]
    assert prompts.embedding(Letters(), "abc", most=1) == [1003, ord("a"), 3]
