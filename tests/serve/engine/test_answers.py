"""Answers: plain tuples."""

from mmllm.serve.engine import answers


def test_an_answer_can_be_taken_apart():
    made = answers.Provenance(
        "nano", "f", "litert", False, True, answers.Timings(0.0, 0.0, 0.0, 0.1)
    )
    text, score, how = answers.Text("a cat", 0.5, made)
    assert (text, score, how.timings.total_s) == ("a cat", 0.5, 0.1)
    assert answers.Reading((answers.Line("a", (0, 1, 2, 3), 0.5),), 4, 5, made).lines[0].box[2] == 2
