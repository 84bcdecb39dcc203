"""What version 1 of the API takes and gives: typed fields with their bounds and units.

`forms` fills the requests from a body, `routes` fills the answers; both stand in the OpenAPI
document. Texts are cleaned and counted by `texts` and languages checked against the model, so that
those errors have codes of their own: here such bounds are documentation.
"""

import functools
from typing import Annotated, Any, Literal

import pydantic
import pydantic_core

from mmllm.runtime import decode, prompts
from mmllm.serve.guard import texts as texts_lib

MAX_HITS = 100
MAX_TEXTS = 1024
"""Texts of a request that are looked at; the setting max_texts may allow fewer."""

MAX_METADATA = 16
"""Entries of the metadata of an item of the index."""

EXAMPLE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQMAAAAlPW0iAAAAA1BMVEXIKB6flGnrAA"
    "AADElEQVR42mNgIA0AAAAwAAEodEl9AAAAAElFTkSuQmCC"
)
"""A red square: what the OpenAPI document shows and its users can try."""


def _object(value: Any, info: Any) -> Any:
    """Reads an object that came as text, as it does in a multipart form."""
    if isinstance(value, str) and info.context is not None:
        return pydantic_core.from_json(value)
    return value


def _shown(text: str) -> str:
    """Refuses what a reader would not see, as the texts for the model do."""
    if (sign := texts_lib.forbidden(text)) is not None:
        raise ValueError(f"must not have the character U+{ord(sign):04X}")
    return text


ItemId = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Image = Annotated[
    str,
    pydantic.Field(
        description="The picture: a data URI (data:image/png;base64,...) or plain base64. "
        "A URL is refused: nothing is fetched.",
        min_length=1,
        examples=[EXAMPLE],
    ),
]
Language = Annotated[
    str, pydantic.Field(description="One of the model's languages, see /v1/info.", max_length=16)
]
Beam = Annotated[
    int,
    pydantic.Field(
        description="Beginnings kept while decoding; 1 is greedy.", ge=1, le=decode.MAX_BEAM
    ),
]
Text = Annotated[
    str,
    pydantic.Field(
        json_schema_extra={"minLength": 1, "maxLength": prompts.MAX_QUESTION},
    ),
]
Shown = pydantic.AfterValidator(_shown)
Key = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=64), Shown]
Value = Annotated[str, pydantic.StringConstraints(max_length=512), Shown]
Metadata = Annotated[
    dict[Key, Value],
    pydantic.Field(
        description="What to give back with a hit; in a form, JSON.", max_length=MAX_METADATA
    ),
    pydantic.BeforeValidator(_object),
]
Box = Annotated[
    tuple[int, int, int, int], pydantic.Field(description="Left, top, right, bottom in pixels.")
]
Score = Annotated[float, pydantic.Field(description="Confidence, 0 to 1.")]


class Schema(pydantic.BaseModel):
    """What every request and answer shares: a field that is not in the schema is an error."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class CaptionFields(Schema):
    """Options of a caption."""

    language: Language = "en"
    beam: Beam = 1


class OcrFields(Schema):
    """Reading takes no options."""


class VqaFields(Schema):
    """A question about a picture."""

    question: Text
    beam: Beam = 1


class EmbedImageFields(Schema):
    """Embedding takes no options."""


class SearchFields(Schema):
    """What to look for: `text`, or a picture."""

    text: Text | None = None
    k: Annotated[int, pydantic.Field(description="Hits at most.", ge=1, le=MAX_HITS)] = 10


class IndexFields(Schema):
    """What to keep beside the vector of a picture."""

    metadata: Metadata = pydantic.Field(default_factory=dict)


class EmbedTextRequest(Schema):
    """Texts to embed."""

    texts: Annotated[list[Text], pydantic.Field(fail_fast=True, min_length=1, max_length=MAX_TEXTS)]


class ReloadRequest(Schema):
    """A model bundle to take the place of the one that serves."""

    model: Annotated[
        str,
        pydantic.Field(
            description="A shipped model's name or a bundle's folder.",
            min_length=1,
            max_length=1024,
        ),
    ]


class Timings(Schema):
    """Where the time went, in milliseconds."""

    decode_ms: float
    queue_ms: float
    engine_ms: float
    total_ms: float


class Answer(Schema):
    """What every answer says about how it was made."""

    model: str
    engine: Annotated[str, pydantic.Field(description="What ran the model: litert or jax.")]
    degraded: Annotated[
        bool, pydantic.Field(description="Made by the fallback, for the first engine is down.")
    ]
    cached: bool
    timings: Timings


class CaptionAnswer(Answer):
    """What a picture shows."""

    caption: str
    language: str
    score: Score


class Line(Schema):
    """A line of text in a picture."""

    text: str
    box: Box
    score: Score


class OcrAnswer(Answer):
    """The text in a picture, in reading order."""

    text: Annotated[str, pydantic.Field(description="The lines, joined by line feeds.")]
    lines: list[Line]
    width: Annotated[int, pydantic.Field(description="Of the picture that the boxes are in.")]
    height: int


class VqaAnswer(Answer):
    """The answer to a question about a picture."""

    answer: str
    score: Score


class EmbedImageAnswer(Answer):
    """The unit vector of a picture."""

    embedding: list[float]
    fingerprint: Annotated[
        str, pydantic.Field(description="Vectors of one fingerprint can be compared.")
    ]


class EmbedTextAnswer(Answer):
    """The unit vectors of texts, in the order of the request."""

    embeddings: list[list[float]]
    fingerprint: str


class Hit(Schema):
    """A picture of the index."""

    id: str
    score: Annotated[float, pydantic.Field(description="Cosine, -1 to 1.")]
    metadata: dict[str, str]


class SearchAnswer(Answer):
    """What is closest to the query, the best first."""

    hits: list[Hit]


class IndexAnswer(Answer):
    """A picture is in the index."""

    id: str


class Limits(Schema):
    """What a request may hold."""

    max_body_bytes: int
    max_pixels: int
    max_side: int
    max_texts: int
    max_text_characters: int
    formats: list[str]


class InfoAnswer(Schema):
    """What serves here."""

    model: str
    version: Annotated[str, pydantic.Field(description="Of the package.")]
    fingerprint: str
    engine: str
    degraded: bool
    languages: list[str]
    embedding_dimensions: int
    index_items: int
    limits: Limits


class ReloadAnswer(Schema):
    """The model that serves from now on."""

    model: str
    fingerprint: str
    engine: str


class ProbeAnswer(Schema):
    """Whether the service is well, and if not, why."""

    status: Literal["ok", "failing"]
    reasons: list[str]


class ProblemDocument(pydantic.BaseModel):
    """What every error answers (RFC 9457), in the language of Accept-Language."""

    model_config = pydantic.ConfigDict(extra="forbid")

    type: Annotated[str, pydantic.Field(description="urn:mmllm:problem: and the code.")]
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    field: Annotated[str, pydantic.Field(description="Of the request that is wrong.")] = ""
    reason: Annotated[str, pydantic.Field(description="For developers, in English.")] = ""
    retry_after: Annotated[int, pydantic.Field(description="Seconds after which to try again.")] = 0


@functools.cache
def with_image(fields: type[Schema], optional: bool = False) -> type[Schema]:
    """The schema of a JSON body that carries a picture beside its fields."""
    image: Any = (Image | None, None) if optional else (Image, ...)
    name = fields.__name__.removesuffix("Fields") + "Request"
    return pydantic.create_model(name, __base__=fields, __doc__=fields.__doc__, image=image)


def form_schema(fields: type[Schema], optional: bool = False) -> dict[str, Any]:
    """The JSON schema of the multipart form of `with_image`."""
    schema = with_image(fields, optional).model_json_schema()
    schema["properties"]["image"] = {"type": "string", "format": "binary"}
    return schema
