"""Turns a conversation in OpenAI's shape into one of the model's tasks.

The model has no memory and takes one picture, so of a conversation counts the last user message:
its text is the question, its picture (or, without one, the last picture before it) what is asked
about. System and assistant messages are read over. What the text asks for picks the task:

    nothing, "describe ..." or "what is in this image?", in 12 languages   caption
    "read ..." or "what does it say?", in 12 languages                     ocr
    anything else                                                          vqa

A caption is in the language of the field `language`, else in that of the request to describe.
"""

import re
from typing import Annotated, Any, Literal, NamedTuple, get_args

import pydantic

from mmllm.runtime import prompts
from mmllm.serve import problems
from mmllm.serve.api import schemas
from mmllm.serve.guard import texts

MAX_MESSAGES = 100
MAX_PARTS = 64
MAX_READ = 200
"""Characters of a message that tell the task."""

Task = Literal["caption", "ocr", "vqa"]
TASKS: tuple[Task, ...] = get_args(Task)

# The beginnings of a wish for a caption or for the text, in lower case; the first that fits wins.
_POLITE = r"(?:(?:please|can you|could you|bitte|merci de|por favor|per favore|proszę|lütfen),? )*+"
CAPTION = {
    "es": r"descr[ií]be\w* (?:la|el|esta|este|lo)\b|describa\w*|qué (?:hay|se ve) en ",
    "en": r"(?:describe|caption)\b|what(?:'s|’s| is) (?:in|on|shown in) (?:this|the) "
    r"(?:image|picture|photo)|what does (?:this|the) (?:image|picture|photo) show",
    "de": r"beschreib\w*|was (?:ist|sieht man|siehst du) auf (?:dem|diesem) (?:bild|foto)",
    "fr": r"décri\w+|que (?:voit-on|vois-tu|montre)\b|qu['’]y a-t-il (?:sur|dans) ",
    "it": r"descriv\w+|(?:che )?cosa c['’]è (?:in|nell['’]|nella )",
    "pt": r"descrev\w+|o que há (?:na|nesta|no) ",
    "nl": r"beschrijf\w*|wat (?:staat|zie je) (?:er )?op (?:deze|dit|de|het) ",
    "pl": r"opisz\w*|co (?:jest|widać) na (?:tym )?(?:zdjęciu|obraz\w+)",
    "ru": r"опиши\w*|что (?:изображено )?на (?:этой |этом )?(?:картинке|фото\w*|изображении)",
    "tr": r"(?:bu )?(?:resmi|görüntüyü|fotoğrafı) (?:tanımla|açıkla|betimle)\w*|bu resimde ne var",
    "ja": r".*(?:説明して|描写して|何が写って)",
    "zh": r"(?:请)?(?:描述|描繪|描绘)|.*(?:图|圖|照)片?(?:里|中|裡|上)有什[么麼]",
}
READ = (
    r"(?:read|transcribe|extract|ocr)\b|what does (?:it|the (?:text|sign)|this) say",
    r"lies\b|was steht (?:da|auf)|lis\b|lisez|lee\b|lea\b|transcrib\w+|leggi\b|leia\b|lees\b",
    r"przeczytaj|прочита\w+|(?:metni )?oku\b|.*読んで|读出|.*写着什么",
)
_CAPTION = [(code, re.compile(_POLITE + f"(?:{pattern})")) for code, pattern in CAPTION.items()]
_READ = re.compile(_POLITE + f"(?:{'|'.join(READ)})")


class Part(pydantic.BaseModel):
    """What all parts of a message share: a field the service does not know is passed over."""

    model_config = pydantic.ConfigDict(frozen=True)


class TextPart(Part):
    """Words."""

    type: Literal["text"]
    text: str


class ImageUrl(Part):
    """Where a picture is: in the request itself."""

    url: schemas.Image
    detail: Literal["auto", "low", "high", "original"] = "auto"


class ImagePart(Part):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


Parts = Annotated[
    list[Annotated[TextPart | ImagePart, pydantic.Field(discriminator="type")]],
    pydantic.Field(fail_fast=True, min_length=1, max_length=MAX_PARTS),
]


class UserMessage(Part):
    """What a person says and shows."""

    role: Literal["user"]
    content: str | Parts


class OtherMessage(Part):
    """What the model read over: it has no memory."""

    role: Literal["system", "developer", "assistant"]
    content: (
        str
        | Annotated[list[dict[str, Any]], pydantic.Field(fail_fast=True, max_length=MAX_PARTS)]
        | None
    ) = None


class StreamOptions(schemas.Schema):
    """How to stream; tokens are not counted, so there is no usage to include."""

    include_usage: Literal[False] | None = False
    include_obfuscation: bool | None = False


class ResponseFormat(schemas.Schema):
    """The form of an answer: text."""

    type: Literal["text"]


Nothing = Annotated[list[Any], pydantic.Field(fail_fast=True, max_length=0)]
"""A list that clients send empty for what they do not use."""


class ChatRequest(schemas.Schema):
    """A conversation. Fields that steer sampling are taken and have no effect.

    Those that ask for what the model cannot do are taken as long as they do not ask for it.
    """

    model: Annotated[str, pydantic.Field(min_length=1, max_length=200, examples=["nano"])]
    messages: Annotated[
        list[Annotated[UserMessage | OtherMessage, pydantic.Field(discriminator="role")]],
        pydantic.Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES),
    ]
    language: Annotated[
        schemas.Language | None,
        pydantic.Field(description="Of a caption, an addition of this service."),
    ] = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = 1
    temperature: Annotated[float | None, pydantic.Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, pydantic.Field(ge=0, le=1)] = None
    frequency_penalty: Annotated[float | None, pydantic.Field(ge=-2, le=2)] = None
    presence_penalty: Annotated[float | None, pydantic.Field(ge=-2, le=2)] = None
    seed: int | None = None
    max_tokens: Annotated[
        int | None, pydantic.Field(ge=1, description="Answers have at most 32 tokens anyway.")
    ] = None
    max_completion_tokens: Annotated[int | None, pydantic.Field(ge=1)] = None
    user: Annotated[str | None, pydantic.Field(max_length=512)] = None
    metadata: schemas.Metadata | None = None
    store: Literal[False] | None = None
    stop: Nothing | None = None
    tools: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float], pydantic.Field(max_length=0)] | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None


class ParsedChat(NamedTuple):
    """One task, about one picture that still is text."""

    task: Task
    image: str
    question: str
    language: str | None


def parse(request: ChatRequest, max_images: int) -> ParsedChat:
    """What a conversation asks for.

    Args:
      request: the conversation.
      max_images: pictures that all its messages may hold.

    Raises:
      problems.Problem: no user message, one that is far too long, no picture, or too many.
    """
    messages = [message for message in request.messages if isinstance(message, UserMessage)]
    if not messages:
        raise problems.Problem("invalid-field", field="messages", reason="no user message")
    shown = [image for message in messages for image in _images(message)]
    if len(shown) > max_images:
        raise problems.Problem("too-many-items", field="messages", limit=max_images)
    if not shown:
        raise problems.Problem(
            "invalid-field", field="messages", reason="no picture: add an image_url part"
        )
    if len(_images(messages[-1])) > 1:
        raise problems.Problem(
            "invalid-field", field="messages", reason="more than one picture in the last message"
        )
    text, limit = _text(messages[-1]), prompts.MAX_QUESTION
    if len(text) > texts.MAX_WORK * limit:
        raise problems.Problem("text-too-long", field="messages", limit=limit)
    task, spoken = task_of(text)
    return ParsedChat(task, shown[-1], text, request.language or spoken)


def task_of(text: str) -> tuple[Task, str | None]:
    """The task that the beginning of a text asks for, and a caption's language if known."""
    plain = " ".join(text[:MAX_READ].casefold().split())
    if not plain:
        return "caption", None
    for language, pattern in _CAPTION:
        if pattern.match(plain):
            return "caption", language
    return ("ocr" if _READ.match(plain) else "vqa"), None


def _images(message: UserMessage) -> list[str]:
    if isinstance(message.content, str):
        return []
    return [part.image_url.url for part in message.content if isinstance(part, ImagePart)]


def _text(message: UserMessage) -> str:
    if isinstance(message.content, str):
        return message.content.strip()
    return " ".join(part.text for part in message.content if isinstance(part, TextPart)).strip()
