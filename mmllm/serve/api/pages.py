"""What a browser opens: the page at "/" and the API's documentation; nothing loads from afar.

Both have a content security policy of their own; that of the rest of the service is "nothing".
"""

import base64
import hashlib
import re
from pathlib import Path

import fastapi
import fastapi_offline
from fastapi.openapi import docs
from starlette import staticfiles
from starlette.responses import FileResponse, HTMLResponse

FOLDER = Path(__file__).parent / "page"
DOCS_FILES = Path(fastapi_offline.__file__).parent / "static"

_COMMON = "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
_COMMON += "frame-ancestors 'none'; "
PAGE_POLICY = _COMMON + "script-src 'self'; style-src 'self'; img-src 'self' blob:"
DOCS_POLICY = _COMMON + (
    "script-src 'self' '{}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)
"""Swagger UI writes style attributes, so styles may be inline; its one script is named by hash."""

_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def add_page(app: fastapi.FastAPI) -> None:
    """Adds the page at "/"."""
    app.mount("/page", staticfiles.StaticFiles(directory=FOLDER), name="page")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(
            FOLDER / "index.html",
            headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"},
        )


def add_docs(app: fastapi.FastAPI, root_path: str = "") -> None:
    """Adds /docs, with all it needs in the package.

    Args:
      app: its document is at app.openapi_url.
      root_path: what a proxy cuts off.
    """
    app.mount("/docs-files", staticfiles.StaticFiles(directory=DOCS_FILES), name="docs-files")
    page = docs.get_swagger_ui_html(
        openapi_url=f"{root_path}{app.openapi_url}",
        title=app.title,
        swagger_js_url=f"{root_path}/docs-files/swagger-ui-bundle.js",
        swagger_css_url=f"{root_path}/docs-files/swagger-ui.css",
        swagger_favicon_url=f"{root_path}/docs-files/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},
    )
    text = bytes(page.body).decode()
    (script,) = _SCRIPT.findall(text)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    headers = {"Content-Security-Policy": DOCS_POLICY.format(f"sha256-{digest}")}

    @app.get("/docs", include_in_schema=False)
    async def swagger() -> HTMLResponse:
        return HTMLResponse(text, headers=headers)
