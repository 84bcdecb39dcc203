"""Each task measured on corpora in memory: known right and wrong answers give known scores."""

from typing import Any

import pytest

from mmllm.evaluate import benchmark, tasks
from mmllm.evaluate.tasks import Row


@pytest.fixture
def measure(corpora: Any, features: Any):
    """Returns a function that measures a row of a model."""

    def measured(row: Row, model: Any, *, neighbours: bool = True) -> tasks.Outcome:
        splits = benchmark.BuiltSplits(corpora, features if neighbours else None)
        return tasks.MEASURES[row.task](row, model, splits)

    return measured


def values(scores: tasks.Scores) -> dict[str, float]:
    return {name: round(score.value, 4) for name, score in scores.items()}


def test_captions_of_a_perfect_model(measure, oracle):
    outcome = measure(Row("caption", "emoji", "style_out"), oracle())
    scores = values(outcome.metrics)
    # The longest names have two words, and BLEU-4 needs four.
    assert scores["exact"] == scores["keyword_hit"] == 1.0
    assert scores["cider_d"] == pytest.approx((3 * 5.0 + 2.5) / 4)
    assert scores["bleu4"] == 0.0
    assert outcome.counts == {"pictures": 8}
    assert outcome.metrics["exact"].n == 8


def test_wrong_captions_count_and_are_shown(measure, oracle):
    outcome = measure(Row("caption", "emoji", "style_out"), oracle(wrong=[3]))
    assert values(outcome.metrics)["exact"] == 0.75
    wrong = [s for s in outcome.samples if s["id"].endswith("/3")]
    assert wrong[0] == {"id": "c/3", "prediction": "red bus", "references": ["Green Tree"]}


def test_other_languages_are_matched_word_by_word_only(measure, oracle):
    outcome = measure(Row("caption", "emoji", "style_out", language="de"), oracle(wrong=[1]))
    assert values(outcome.metrics) == {"exact": 0.75}
    assert set(outcome.baselines) == {"majority", "chance", "nearest"}


def test_caption_baselines_know_the_training_captions_only(measure, oracle):
    outcome = measure(Row("caption", "emoji", "style_out"), oracle())
    # "Cat" is the most frequent; the nearest neighbour knows three of the four names.
    assert values(outcome.baselines["majority"])["exact"] == 0.25
    assert values(outcome.baselines["nearest"])["exact"] == 0.75


def test_a_language_nobody_speaks_is_an_error(measure, oracle):
    with pytest.raises(ValueError, match="caption/emoji/style_out/xx: no picture has a caption"):
        measure(Row("caption", "emoji", "style_out", language="xx"), oracle())


def test_search_among_seen_names_takes_only_names_of_the_training_split(measure, oracle):
    outcome = measure(Row("retrieval", "emoji", "style_out", seen_names=400), oracle())
    # "green tree" was never seen in training.
    assert outcome.counts == {"pictures": 6, "names": 3}
    assert values(outcome.metrics)["image_to_text_r1"] == 1.0
    assert values(outcome.metrics)["text_to_image_r1"] == 1.0
    assert outcome.metrics["text_to_image_r1"].n == 3


def test_search_draws_names_by_a_fixed_seed(measure, oracle):
    row = Row("retrieval", "emoji", "style_out", seen_names=2)
    first, second = measure(row, oracle()), measure(row, oracle())
    assert first == second
    assert first.counts == {"pictures": 4, "names": 2}


def test_search_in_both_directions_by_hand(measure, oracle):
    # Cats look like buses: cat pictures find "red bus" first and then all names at 0, tied.
    outcome = measure(Row("retrieval", "emoji", "style_out", seen_names=400), oracle(wrong=[1]))
    scores = values(outcome.metrics)
    assert scores["image_to_text_r1"] == round(4 / 6, 4)
    # "cat" finds no picture (all tie at 0 and ties count against it); "red bus" ties with cats.
    assert scores["text_to_image_r1"] == round(1 / 3, 4)
    assert scores["text_to_image_r5"] == 1.0
    chance = values(outcome.baselines["chance"])
    assert chance["image_to_text_r1"] == chance["text_to_image_r1"] == round(1 / 3, 4)


def test_unseen_names_have_no_nearest_neighbour(measure, oracle):
    outcome = measure(Row("retrieval", "emoji", "concept_out"), oracle())
    assert outcome.counts == {"pictures": 4, "names": 2}
    assert set(outcome.baselines) == {"chance"}
    seen = measure(Row("retrieval", "emoji", "style_out", seen_names=9), oracle())
    assert values(seen.baselines["nearest"])["image_to_text_r1"] == 1.0


def test_without_features_there_is_no_nearest_neighbour(measure, oracle):
    for row in (Row("caption", "emoji", "style_out"), Row("retrieval", "emoji", "concept_out")):
        assert "nearest" not in measure(row, oracle(), neighbours=False).baselines


def test_lines_by_hand(measure, oracle):
    outcome = measure(Row("lines", "ocr_lines", "unseen_print"), oracle(wrong=[2]))
    # "hello world" for "cat" takes 11 edits; the four lines have 11 + 9 + 3 + 5 characters.
    scores = values(outcome.metrics)
    assert scores["exact"] == 0.75
    assert scores["cer"] == round(11 / 28, 4)
    assert outcome.counts == {"lines": 4, "fonts": 2}
    assert values(outcome.baselines["silence"]) == {"cer": 1.0, "wer": 1.0, "exact": 0.0}
    assert values(outcome.baselines["chance"])["exact"] == 0.0


def test_answers_by_kind_beside_the_question_only_baseline(measure, oracle):
    outcome = measure(Row("vqa", "composites", "test"), oracle(wrong=[3]))
    assert values(outcome.metrics) == {
        "accuracy": 0.75,
        "accuracy:count": 0.75,
        "accuracy:exists": 0.75,
    }
    # Training says "1" to how many and "no" to the bus.
    assert values(outcome.baselines["blind"]) == {
        "accuracy": 0.5,
        "accuracy:count": 0.25,
        "accuracy:exists": 0.75,
    }
    assert outcome.counts == {"pictures": 4, "questions": 8}


def test_a_picture_with_several_questions_is_handed_over_as_one_object(measure, oracle):
    class Counting(oracle):
        def answer_batch(self, images: Any, questions: Any) -> list[str]:
            self.pictures = len({id(image) for image in images})
            return [""] * len(questions)

    model = Counting()
    measure(Row("vqa", "composites", "test"), model)
    assert model.pictures == 4


def test_most_limits_the_pictures(measure, oracle):
    model = oracle()
    assert measure(Row("vqa", "composites", "test", most=1), model).counts["pictures"] == 1
    assert model.batches == [2]


def test_rows_are_named_by_task_corpus_split_and_language():
    assert Row("caption", "emoji", "style_out").name == "caption/emoji/style_out"
    assert Row("caption", "emoji", "style_out", language="de").name.endswith("style_out/de")
