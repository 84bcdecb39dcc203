"""Version 1 of the API: from a request's body to a task of the service, and back to a schema.

    POST /v1/caption /v1/ocr /v1/vqa /v1/embed/image /v1/embed/text /v1/search /v1/index/{id}
    DELETE /v1/index/{id}, GET /v1/info, POST /v1/admin/reload

Each route names the scope its caller needs, and `forms` rather than FastAPI reads the bodies: two
media types with one schema, and a caller is known before the body is read.
"""

import asyncio
from typing import Annotated, Any

import fastapi
from fastapi import Depends
from starlette.requests import Request

import mmllm
from mmllm.runtime import prompts
from mmllm.serve import problems
from mmllm.serve.api import admission, document, forms, schemas
from mmllm.serve.engine import answers
from mmllm.serve.guard import pictures

router = fastapi.APIRouter(prefix="/v1", tags=["Pictures"])

ItemId = Annotated[schemas.ItemId, fastapi.Path(description="Your name for the picture.")]


def task(path: str, scope: str, extra: dict[str, Any], *codes: str, **more: Any) -> Any:
    """Declares a POST route that callers need `scope` for, with the errors `codes` of its own."""
    return router.post(
        path,
        dependencies=[Depends(admission.admit(scope))],
        openapi_extra=extra,
        responses=document.errors(*codes),
        **more,
    )


@task("/caption", "caption", document.with_image(schemas.CaptionFields), *document.PICTURE)
async def caption(request: Request) -> schemas.CaptionAnswer:
    """Says what a picture shows."""
    body = await forms.read(request, schemas.CaptionFields)
    options = body.fields
    image = await picture(request, body.image)
    work = admission.service_of(request).caption(
        image, language=options.language, beam=options.beam
    )
    text = await admission.until_disconnect(request, work)
    return schemas.CaptionAnswer(
        caption=text.text, language=options.language, score=text.score, **_provenance(text.made)
    )


@task("/ocr", "ocr", document.with_image(schemas.OcrFields), *document.PICTURE)
async def ocr(request: Request) -> schemas.OcrAnswer:
    """Reads the lines of text in a picture with a near-uniform background."""
    body = await forms.read(request, schemas.OcrFields)
    image = await picture(request, body.image)
    reading = await admission.until_disconnect(request, admission.service_of(request).ocr(image))
    return schemas.OcrAnswer(
        text="\n".join(line.text for line in reading.lines),
        lines=[schemas.Line(text=at.text, box=at.box, score=at.score) for at in reading.lines],
        width=reading.width,
        height=reading.height,
        **_provenance(reading.made),
    )


@task("/vqa", "vqa", document.with_image(schemas.VqaFields), *document.PICTURE)
async def vqa(request: Request) -> schemas.VqaAnswer:
    """Answers a question about a picture in a word or two."""
    body = await forms.read(request, schemas.VqaFields)
    options = body.fields
    image = await picture(request, body.image)
    work = admission.service_of(request).vqa(image, options.question, beam=options.beam)
    text = await admission.until_disconnect(request, work)
    return schemas.VqaAnswer(answer=text.text, score=text.score, **_provenance(text.made))


@task("/embed/image", "embed", document.with_image(schemas.EmbedImageFields), *document.PICTURE)
async def embed_image(request: Request) -> schemas.EmbedImageAnswer:
    """Gives the unit vector of a picture, in the same space as those of texts."""
    body = await forms.read(request, schemas.EmbedImageFields)
    image = await picture(request, body.image)
    vectors = await admission.until_disconnect(
        request, admission.service_of(request).embed_image(image)
    )
    return schemas.EmbedImageAnswer(
        embedding=list(vectors.vectors[0]),
        fingerprint=vectors.made.fingerprint,
        **_provenance(vectors.made),
    )


@task(
    "/embed/text", "embed", document.with_json(schemas.EmbedTextRequest), "unsupported-media-type"
)
async def embed_text(request: Request) -> schemas.EmbedTextAnswer:
    """Gives the unit vectors of texts."""
    body = await forms.read_json(request, schemas.EmbedTextRequest)
    vectors = await admission.until_disconnect(
        request, admission.service_of(request).embed_text(body.texts)
    )
    return schemas.EmbedTextAnswer(
        embeddings=[list(vector) for vector in vectors.vectors],
        fingerprint=vectors.made.fingerprint,
        **_provenance(vectors.made),
    )


@task(
    "/search",
    "search",
    document.with_image(schemas.SearchFields, optional=True),
    *document.PICTURE,
    "index-unavailable",
)
async def search(request: Request) -> schemas.SearchAnswer:
    """Finds the pictures of the index that are closest to a text, or to a picture."""
    body = await forms.read(request, schemas.SearchFields, optional=True)
    text = body.fields.text
    if (body.image is None) == (text is None):
        raise problems.Problem("invalid-field", field="text", reason="give a text or an image")
    image = None if body.image is None else await picture(request, body.image)
    work = admission.service_of(request).search(text=text, image=image, k=body.fields.k)
    found = await admission.until_disconnect(request, work)
    hits = [schemas.Hit(id=hit.id, score=hit.score, metadata=hit.metadata) for hit in found.hits]
    return schemas.SearchAnswer(hits=hits, **_provenance(found.made))


@task(
    "/index/{id}",
    "index",
    document.with_image(schemas.IndexFields),
    *document.PICTURE,
    "index-full",
    "index-unavailable",
)
async def index_add(request: Request, id: ItemId) -> schemas.IndexAnswer:
    """Keeps the vector of a picture, in the place of an older one of the same name."""
    body = await forms.read(request, schemas.IndexFields)
    image = await picture(request, body.image)
    work = admission.service_of(request).index_add(id, image, body.fields.metadata)
    kept = await admission.until_disconnect(request, work)
    return schemas.IndexAnswer(id=kept.id, **_provenance(kept.made))


@router.delete(
    "/index/{id}",
    status_code=204,
    dependencies=[Depends(admission.admit("index"))],
    responses=document.errors("entry-not-found", "index-unavailable"),
)
async def index_remove(request: Request, id: ItemId) -> None:
    """Forgets a picture."""
    await admission.service_of(request).index_remove(id)


@router.get("/info", dependencies=[Depends(admission.admit())], responses=document.errors())
async def info(request: Request) -> schemas.InfoAnswer:
    """What serves here, and what a request may hold."""
    context = admission.context_of(request)
    serves = context.service.info()
    return schemas.InfoAnswer(
        model=serves.model,
        version=mmllm.__version__,
        fingerprint=serves.fingerprint,
        engine=serves.engine,
        degraded=serves.degraded,
        languages=list(serves.languages),
        embedding_dimensions=serves.embedding_dimensions,
        index_items=serves.index_items,
        limits=schemas.Limits(
            max_body_bytes=context.settings.max_body_bytes,
            max_pixels=context.settings.max_pixels,
            max_side=context.settings.max_side,
            max_texts=context.settings.max_texts,
            max_text_characters=prompts.MAX_QUESTION,
            formats=list(context.settings.formats),
        ),
    )


@task(
    "/admin/reload",
    "admin",
    document.with_json(schemas.ReloadRequest),
    "unsupported-media-type",
    "reload-running",
    "several-processes",
    "model-refused",
)
async def reload(request: Request) -> schemas.ReloadAnswer:
    """Puts another model in the place of the one that serves, without a failed request.

    Only where a single process serves: with several, this request would reach one of them. Put the
    new bundle in place and send SIGHUP to the first process, which replaces them one by one.
    """
    if admission.context_of(request).settings.workers > 1:
        hint = "put the new bundle in place and send SIGHUP to the first process"
        raise problems.Problem("several-processes", reason=hint)
    body = await forms.read_json(request, schemas.ReloadRequest)
    # Who asked for it may hang up: a reload that began is finished.
    serves = await admission.service_of(request).reload(body.model)
    return schemas.ReloadAnswer(
        model=serves.model, fingerprint=serves.fingerprint, engine=serves.engine
    )


async def picture(request: Request, image: bytes | str | None) -> bytes:
    """The bytes of a picture, whichever way it came; `service` decodes them."""
    if isinstance(image, bytes):
        return image
    if image is None:
        raise problems.Problem("invalid-field", field=forms.IMAGE, reason="missing")
    limits = pictures.limits_of(admission.context_of(request).settings)
    if len(image) <= forms.INLINE_BYTES:
        return pictures.from_data_uri(image, limits)
    return await asyncio.to_thread(pictures.from_data_uri, image, limits)


def _provenance(how: answers.Provenance) -> dict[str, Any]:
    """The fields that all answers share."""
    return {
        "model": how.model,
        "engine": how.engine,
        "degraded": how.degraded,
        "cached": how.cached,
        "timings": schemas.Timings(
            decode_ms=_ms(how.timings.decode_s),
            queue_ms=_ms(how.timings.queue_s),
            engine_ms=_ms(how.timings.engine_s),
            total_ms=_ms(how.timings.total_s),
        ),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
