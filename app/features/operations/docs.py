"""`/openapi.json` and `/docs`: the API's description and Swagger UI, both from this process alone.

Nothing is loaded from elsewhere: the scripts and styles come out of the package `fastapi-swagger`, which
carries the current Swagger UI, and the page holds no inline script, so it works offline and under a strict
policy.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import Request, Response
from fastapi.responses import FileResponse, HTMLResponse

from app.core.errors import NotFoundError
from app.http.openapi import TITLE
from app.http.routing import ApiRouter

router = ApiRouter(include_in_schema=False)

_ASSETS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_CACHED: Final = {"Cache-Control": "public, max-age=300"}
_POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'self'; frame-ancestors 'none'"
)
_PAGE: Final = f"""<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{TITLE} API</title>
  <link rel="icon" href="/docs/favicon-32x32.png">
  <link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/docs/swagger-ui-bundle.js"></script>
  <script src="/docs/start.js"></script>
</body>
</html>
"""
_START: Final = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """Return the OpenAPI document."""
    body = await request.app.openapi_json()
    return Response(body, media_type="application/json", headers=_CACHED)


@router.get("/docs")
async def docs() -> Response:
    """Return the page that shows the document and lets one try it."""
    return HTMLResponse(_PAGE, headers={**_CACHED, "Content-Security-Policy": _POLICY})


@router.get("/docs/start.js")
async def start() -> Response:
    """Return the script that starts Swagger UI."""
    return Response(_START, media_type="text/javascript", headers=_CACHED)


@router.get("/docs/{asset}")
async def asset(asset: str) -> Response:
    """Return a file of Swagger UI."""
    media_type = _ASSETS.get(asset)
    if media_type is None:
        raise NotFoundError
    path = Path(str(files("fastapi_swagger") / "resources" / asset))
    return FileResponse(path, media_type=media_type, headers=_CACHED)
