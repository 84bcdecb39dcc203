"""What the service answers: plain tuples, and their form in the result cache.

`service` makes them, `routes` turns them into the API's schemas, `cache` keeps them as JSON.
"""

from typing import Any, NamedTuple

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the upright picture."""

Vector = tuple[float, ...]


class Timings(NamedTuple):
    """Where the time of one answer went, in seconds; a cached answer has a total alone."""

    decode_s: float
    queue_s: float
    engine_s: float
    total_s: float


class Provenance(NamedTuple):
    """How an answer was made.

    Attributes:
      model: name of the bundle.
      fingerprint: of the bundle; vectors of one fingerprint can be compared.
      engine: "litert" or "jax".
      degraded: not by the engine that was chosen, which is down.
      cached: made for an earlier request, or for another one at the same time.
      timings: of this request.
    """

    model: str
    fingerprint: str
    engine: str
    degraded: bool
    cached: bool
    timings: Timings


class Text(NamedTuple):
    """A caption or an answer, and its confidence, 0..1."""

    text: str
    score: float
    made: Provenance


class Line(NamedTuple):
    """A line of text in a picture."""

    text: str
    box: Box
    score: float


class Reading(NamedTuple):
    """The lines of a picture in reading order, and the size of the picture their boxes are in."""

    lines: tuple[Line, ...]
    width: int
    height: int
    made: Provenance


class Vectors(NamedTuple):
    """Unit vectors, one a picture or text."""

    vectors: tuple[Vector, ...]
    made: Provenance


class Hit(NamedTuple):
    """An entry of the index and the cosine of its vector with the query's."""

    id: str
    score: float
    metadata: dict[str, Any]


class Hits(NamedTuple):
    """What is closest to a query, best first."""

    hits: tuple[Hit, ...]
    made: Provenance


class Indexed(NamedTuple):
    """An entry that is in the index now."""

    id: str
    made: Provenance


class Info(NamedTuple):
    """What serves now.

    Attributes:
      model: name of the bundle.
      fingerprint: of the bundle.
      engine: the one that answers first.
      degraded: that engine's breaker is open.
      languages: of captions.
      embedding_dimensions: length of a vector.
      index_items: entries of the search index; 0 while it is not available.
    """

    model: str
    fingerprint: str
    engine: str
    degraded: bool
    languages: tuple[str, ...]
    embedding_dimensions: int
    index_items: int
