"""Tables about training: what the search for names gains, and what each part of the model costs."""

from collections.abc import Callable, Sequence

from experiments.tables import notes
from mmllm.evaluate import scores
from mmllm.evaluate.scores import Result


def name_search_table(results: Sequence[Result]) -> str:
    """PAPER: what the search for names gains from views, artists and tuning."""
    rows = notes.rows_of(results, "name_search")
    metrics = [
        f"style_out/{name}" for name in ("image_to_text_r1", "image_to_text_r5", "text_to_image_r1")
    ] + ["concept_out/image_to_text_r1"]
    parts = [metric.split("/") for metric in metrics]
    titles = [f"{scores.SPLITS[split]}: {scores.title(name)}" for split, name in parts]
    table = scores.markdown(
        ("trained on", "drawings", *titles),
        [
            (
                notes.signed(row["row"], row),
                f"{row['pictures']:,}",
                *(scores.number(row["metrics"][metric], with_std=True) for metric in metrics),
            )
            for row in rows
        ],
    )
    return table + notes.footnotes(rows)


def limits_table(results: Sequence[Result]) -> str:
    """PAPER: what each part of the model costs, by putting something better in its place."""
    rows = notes.rows_of(results, "limits")
    shown = ("image_to_text_r1", "image_to_text_r5", "exact", "accuracy")
    table = scores.markdown(
        ("test", "from", "metric", "score", "n"),
        [
            (
                scores.place(row),
                notes.signed(row["part"], row),
                scores.title(metric),
                scores.number(score, with_std=True),
                str(score["n"]),
            )
            for row in rows
            for metric, score in row["metrics"].items()
            if metric in shown
        ],
    )
    return table + notes.footnotes(rows)


TABLES: dict[str, Callable[[Sequence[Result]], str]] = {
    "name_search": name_search_table,
    "limits": limits_table,
}
