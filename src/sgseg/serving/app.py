"""The HTTP service: X-rays in, masks and reports out, and the viewer at `/`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import python_multipart  # noqa: F401 (FastAPI needs it for uploads, and says so only in a RuntimeError)
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

import sgseg
from sgseg.anatomy import ZONES, Laterality, ZoneSet
from sgseg.batch import SEEDS
from sgseg.data import phantom
from sgseg.errors import (
    FormatError,
    MissingExtraError,
    NotApplicableError,
    ReportError,
    SGSegError,
    TooLargeError,
)
from sgseg.formats import png_bytes
from sgseg.imaging import ChestXray, read_bytes
from sgseg.inference import Prediction, Predictor
from sgseg.reports import Guidance, parse
from sgseg.serving.engine import BusyError, Engine, Look, Question
from sgseg.serving.gate import Gate, failure
from sgseg.serving.limits import Limits, PixelBudget
from sgseg.serving.metrics import Metrics
from sgseg.serving.schemas import (
    Answer,
    BatchAnswer,
    Example,
    FailedImage,
    Failure,
    MaskEncoding,
    Orientation,
    Problem,
    Status,
    answer,
    mask_png,
    turned,
)

_STATIC = Path(__file__).parent / "static"
_DECODERS = 2
"""Files decoded at once: each may take some hundred megabytes for a moment."""
_EXAMPLE_SIZE = 512
_PNG = "image/png"
_PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {_PNG: {}}}}
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}}}
_DESCRIPTION = """Finds lesions in chest X-rays and writes the report that goes with them.

**For research. Not for clinical use.** Words mean the patient's left and right unless `laterality` says
`image`. An image that was sent is kept in memory for a while and can be asked about again by its `image_id`,
with other zones or words, for a fraction of the time.
"""

# The first that fits; a code for programs, and the status.
_ERRORS: tuple[tuple[type[SGSegError], int, str], ...] = (
    (BusyError, 429, "queue_full"),
    (TooLargeError, 413, "image_too_large"),
    (FormatError, 415, "unsupported_image"),
    (MissingExtraError, 415, "unsupported_image"),
    (NotApplicableError, 422, "not_applicable"),
    (ReportError, 422, "invalid_report"),
    (SGSegError, 422, "invalid_image"),
)
_CODES = {
    400: "malformed_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    503: "not_ready",
}
_MEANINGS = {
    400: "The body is not what its header says.",
    401: "The API key is missing or wrong.",
    404: "There is no such image, or it is no longer kept: send the file.",
    413: "The request, the image or the batch is too large.",
    415: "Not multipart/form-data, or not an image that is read.",
    422: "The image is damaged or no frontal chest X-ray, or the report or a parameter is not understood.",
    429: "Too much is waiting; try again after `Retry-After` seconds.",
    503: "Not ready, or not finished in time; try again.",
}


def create_app(predictor: Predictor, limits: Limits | None = None, api_key: str | None = None) -> FastAPI:
    """The service as an ASGI application.

    Args:
        predictor: answers; its threshold is the default one.
        limits: what the service takes on.
        api_key: that clients must send; None lets everyone in.
    """
    limits, metrics = limits or Limits(), Metrics()
    service = Service(predictor, limits, metrics)
    # Uploads stay in memory, where `Gate` bounds them: patients' pictures have no business on the disk.
    MultiPartParser.spool_max_size = limits.upload_bytes

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await to_thread.run_sync(service.engine.start)
        yield
        await to_thread.run_sync(service.engine.stop)

    # FastAPI's own pages of documentation load scripts from elsewhere.
    app = FastAPI(
        title="SGSeg",
        version=sgseg.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(Gate, limits=limits, metrics=metrics, api_key=api_key)
    _add_error_handlers(app)
    _add_predictions(app)
    _add_pictures(app)
    _add_operations(app)
    app.mount("/static", StaticFiles(directory=_STATIC))
    return app


class Service:
    """What the routes share."""

    def __init__(self, predictor: Predictor, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self.engine = Engine(predictor, limits, metrics)
        self._decoders = CapacityLimiter(_DECODERS)
        self._budget = PixelBudget(limits.answered_pixels)

    def question(
        self,
        report: str | None,
        zones: str | None,
        guidance: Guidance | None,
        threshold: float | None,
        laterality: Laterality,
    ) -> Question:
        """What a client's parameters ask.

        Raises:
            ReportError: words are not understood, or parameters contradict each other.
        """
        predictor = self.engine.predictor
        if report is not None and zones is not None:
            raise ReportError("report and zones both guide; give one of them")
        given = _zones_named(zones, laterality) if zones else parse(report, laterality) if report else None
        source = guidance or (predictor.runtime.guidance if given is None else Guidance.TEXT)
        if (source is Guidance.TEXT) != (given is not None):
            raise ReportError(f"guidance {source.value!r} does not fit; a report or zones guide, or it does")
        return Question(source, given, predictor.threshold if threshold is None else threshold)

    async def predict(
        self,
        image: UploadFile | None,
        image_id: str | None,
        question: Question,
        force: bool,
        answering: Callable[[str, Prediction], Answer | Response],
    ) -> Any:
        """What `answering` makes, in a thread, of the image's id and the prediction.

        Raises:
            HTTPException: neither an image nor the id of one that is kept.
            SGSegError: the image cannot be predicted.
        """
        async with self._source(image, image_id, force) as (key, source):
            prediction = await asyncio.wrap_future(self.engine.submit(key, source, question))
            return await to_thread.run_sync(answering, key, prediction.applicable(_name(image), force))

    async def picture(self, image_id: str) -> bytes:
        """A kept X-ray as a person sees it: hung the standard way, bones bright, an 8-bit PNG."""
        xray = self._kept(image_id).xray
        async with self._budget.spend(xray.pixels.size):
            return await to_thread.run_sync(_seen, xray)

    @asynccontextmanager
    async def _source(
        self, image: UploadFile | None, image_id: str | None, force: bool
    ) -> AsyncIterator[tuple[str, ChestXray | Look]]:
        """What the image's answer is made of; meanwhile its pixels are spent."""
        if (image is None) == (image_id is None):
            raise HTTPException(422, "give image, a file, or image_id, of an image sent before")
        content = b"" if image is None else await image.read()
        key = image_id or str(await to_thread.run_sync(lambda: hashlib.sha256(content).hexdigest()))
        look = self.engine.looks.get(key) if image_id is None else self._kept(image_id)
        if look is not None:
            async with self._budget.spend(look.xray.pixels.size):
                yield key, look
            return
        async with AsyncExitStack() as spent:
            async with self._decoders:  # until it is let through, so that few decoded images wait
                reading = partial(read_bytes, content, _name(image), force, self.limits.pixels)
                xray = await to_thread.run_sync(reading)
                await spent.enter_async_context(self._budget.spend(xray.pixels.size))
            yield key, xray

    def _kept(self, image_id: str) -> Look:
        look = self.engine.looks.get(image_id)
        if look is None:
            raise HTTPException(404, "this image is not kept, or no longer; send the file")
        return look


def _name(image: UploadFile | None) -> str:
    return (image and image.filename) or "the image"


def _seen(xray: ChestXray) -> bytes:
    return png_bytes(np.rint(xray.hanging.hung(xray.pixels) * 255).astype(np.uint8))


def _zones_named(text: str, laterality: Laterality) -> ZoneSet:
    """The zones of a list such as "lower right, middle left"; "none" is no zone."""
    names = {zone.name(laterality): zone for zone in ZONES}
    words = [] if text.strip().lower() == "none" else [" ".join(n.lower().split()) for n in text.split(",")]
    unknown = [word for word in words if word not in names]
    if unknown:
        raise ReportError(f"there is no zone {unknown[0]!r}; give none, or some of {', '.join(names)}")
    return ZoneSet.of(names[word] for word in words)


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


def _form_only(request: Request) -> None:
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "send multipart/form-data, the image as a part with a file name")


def _question(
    service: Annotated[Service, Depends(_service)],
    report: Annotated[
        str | None,
        Form(max_length=500, description="Words that guide the mask.", examples=["lower right lung"]),
    ] = None,
    zones: Annotated[
        str | None,
        Form(
            max_length=200,
            description="Zones that guide the mask instead, divided by commas; `none`: no infection.",
            examples=["lower right, middle left"],
        ),
    ] = None,
    guidance: Annotated[
        Guidance | None, Form(description="`none`, `self` or `self-soft`; default: the model card's.")
    ] = None,
    threshold: Annotated[
        float | None, Form(ge=0, le=1, description="Probability above which it is lesion; default 0.5.")
    ] = None,
    laterality: Annotated[Laterality, Form(description="Whose left the words mean.")] = Laterality.PATIENT,
) -> Question:
    return service.question(report, zones, guidance, threshold, laterality)


_Service = Annotated[Service, Depends(_service)]
_Question = Annotated[Question, Depends(_question)]
_Laterality = Annotated[Laterality, Form(description="Whose left the words mean.")]
_Force = Annotated[bool, Form(description="Predict what is no frontal chest X-ray all the same.")]
_Encoding = Annotated[MaskEncoding, Form(description="How JSON holds the mask.")]
_Orientation = Annotated[Orientation, Form(description="Whose rows and columns the mask has.")]
_Probability = Annotated[bool, Form(description="Send the probabilities as well.")]
_Attention = Annotated[bool, Form(description="Send where the model looked for each zone as well.")]


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Failure, "description": _MEANINGS[status]} for status in statuses}


def _add_predictions(app: FastAPI) -> None:
    refusals = _failures(400, 401, 413, 415, 422, 429, 503)
    only_forms = [Depends(_form_only)]

    @app.post(
        "/v1/predict",
        summary="Predict an X-ray",
        response_model=Answer,
        responses={200: {"content": {_PNG: {}}, "description": "JSON; or with Accept: image/png the mask."}}
        | refusals
        | _failures(404),
        dependencies=only_forms,
    )
    async def predict(
        request: Request,
        service: _Service,
        question: _Question,
        image: Annotated[UploadFile | None, File(description="PNG, JPEG, TIFF, BMP, WebP or DICOM.")] = None,
        image_id: Annotated[
            str | None, Form(pattern="^[0-9a-f]{64}$", description="Of an image sent before, instead.")
        ] = None,
        laterality: _Laterality = Laterality.PATIENT,
        force: _Force = False,
        mask_encoding: _Encoding = MaskEncoding.PNG,
        orientation: _Orientation = Orientation.FILE,
        probability: _Probability = False,
        attention: _Attention = False,
    ) -> Any:
        def answering(key: str, prediction: Prediction) -> Answer | Response:
            if _PNG in request.headers.get("Accept", ""):
                return Response(mask_png(turned(prediction.mask, prediction, orientation)), media_type=_PNG)
            name = image.filename or "" if image else ""
            return answer(
                prediction, name, key, laterality, mask_encoding, orientation, probability, attention
            )

        return await service.predict(image, image_id, question, force, answering)

    @app.post(
        "/v1/predict/batch",
        summary="Predict several X-rays",
        description="What fails is named in its place, and the others are finished.",
        responses=refusals,
        dependencies=only_forms,
    )
    async def predict_batch(
        service: _Service,
        question: _Question,
        images: Annotated[list[UploadFile], File(description="PNG, JPEG, TIFF, BMP, WebP or DICOM.")],
        laterality: _Laterality = Laterality.PATIENT,
        force: _Force = False,
        mask_encoding: _Encoding = MaskEncoding.PNG,
        orientation: _Orientation = Orientation.FILE,
    ) -> BatchAnswer:
        if len(images) > service.limits.images:
            raise HTTPException(413, f"a batch holds up to {service.limits.images} images, not {len(images)}")

        async def one(image: UploadFile) -> Answer | FailedImage:
            name = image.filename or ""

            def answering(key: str, prediction: Prediction) -> Answer:
                return answer(prediction, name, key, laterality, mask_encoding, orientation, False, False)

            try:
                answered: Answer = await service.predict(image, None, question, force, answering)
            except BusyError:
                raise
            except SGSegError as error:
                _, code = _status(error)
                return FailedImage(name=name, error=Problem(code=code, message=str(error)))
            return answered

        tasks = [asyncio.create_task(one(image)) for image in images]
        try:
            return BatchAnswer(results=await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()  # the others, if one was told that too much is waiting


def _add_pictures(app: FastAPI) -> None:
    @app.get(
        "/v1/images/{image_id}",
        summary="A kept X-ray, as a person sees it",
        description="Hung the standard way, bones bright, 8-bit grey, without anything else the file held.",
        response_class=Response,
        responses=_PICTURE | _failures(401, 404, 422, 429, 503),
    )
    async def picture(service: _Service, image_id: str) -> Response:
        return Response(await service.picture(image_id), media_type=_PNG)

    @app.get("/v1/examples", summary="Synthetic X-rays to try", responses=_failures(401, 429, 503))
    async def examples() -> list[Example]:
        names = [f"phantom_{seed:06d}.png" for seed in SEEDS]
        return [Example(name=name, url=f"v1/examples/{name}") for name in names]

    @app.get(
        "/v1/examples/{name}",
        summary="A synthetic X-ray; no patient is on it",
        response_class=Response,
        responses=_PICTURE | _failures(401, 404, 422, 429, 503),
    )
    async def example(name: str) -> Response:
        seeds = {f"phantom_{seed:06d}.png": seed for seed in SEEDS}
        if name not in seeds:
            raise HTTPException(404, f"there is no example {name!r}; GET /v1/examples lists them")
        return Response(await to_thread.run_sync(_drawn, seeds[name]), media_type=_PNG)


def _add_operations(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def viewer() -> FileResponse:
        return FileResponse(_STATIC / "index.html")

    @app.get("/healthz", summary="Is the process alive?")
    async def health() -> Status:
        return Status(status="ok")

    @app.get("/readyz", summary="Can it predict?", responses=_failures(503))
    async def ready(service: _Service) -> Status:
        if not service.engine.ready:
            raise HTTPException(503, "the model is not running; start the service again")
        return Status(status="ready")

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses=_TEXT | _failures(401, 429, 503),
    )
    async def metrics(service: _Service) -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@lru_cache(maxsize=len(SEEDS))
def _drawn(seed: int) -> bytes:
    return png_bytes(phantom.draw(seed, _EXAMPLE_SIZE).pixels)


def _status(error: SGSegError) -> tuple[int, str]:
    return next((status, code) for kind, status, code in _ERRORS if isinstance(error, kind))


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(SGSegError)
    async def refused(_: Request, error: SGSegError) -> Response:
        return failure(*_status(error), str(error))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        response = failure(error.status_code, _CODES.get(error.status_code, "refused"), str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        problems = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
        return failure(422, "invalid_request", "; ".join(problems))

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        return failure(500, "internal", f"the service failed ({type(error).__name__}); please report it")
