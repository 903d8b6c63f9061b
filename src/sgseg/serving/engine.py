"""One thread that plays the model for all clients: bounded queue, batches, features kept for corrections.

Whatever waits when the model becomes free is answered together, so batches grow with the load and an idle
service answers at once. What was encoded is kept for a while: another report on the same image runs the
decoder alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import Empty, Full, Queue
from threading import Lock, Thread
from typing import Any, NamedTuple

import numpy as np

from sgseg.anatomy import ZoneSet
from sgseg.errors import SGSegError
from sgseg.imaging import ChestXray
from sgseg.inference import Encoded, Prediction, Predictor
from sgseg.reports import Guidance
from sgseg.serving.limits import Limits
from sgseg.serving.metrics import Metrics

LARGEST_BATCH = 8
"""Images encoded at once; more gain nothing on a CPU and delay the first."""


class BusyError(SGSegError):
    """More is waiting than the service takes on."""


class Question(NamedTuple):
    """What is asked of an image.

    Attributes:
        guidance: where the report comes from.
        zones: of the user's report; for `Guidance.TEXT` only.
        threshold: of the mask.
    """

    guidance: Guidance
    zones: ZoneSet | None
    threshold: float


class Look(NamedTuple):
    """An X-ray and what the encoder saw in it, a batch of one."""

    xray: ChestXray
    encoded: Encoded


@dataclass(frozen=True)
class Job:
    """One question on its way through the queue.

    Attributes:
        key: hash of the file's content.
        source: the image, or the look at it that is already there.
        question: what is asked.
        future: where the answer goes.
    """

    key: str
    source: ChestXray | Look
    question: Question
    future: Future[Prediction] = field(default_factory=Future)


class Looks:
    """The last looks by their keys, bounded in number and in pixels; safe between threads."""

    def __init__(self, images: int, pixels: int) -> None:
        self._images, self._pixels = images, pixels
        self._looks: OrderedDict[str, Look] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._looks)

    def get(self, key: str) -> Look | None:
        with self._lock:
            if key in self._looks:
                self._looks.move_to_end(key)
            return self._looks.get(key)

    def put(self, key: str, look: Look) -> None:
        with self._lock:
            self._looks[key] = look
            while len(self._looks) > self._images or self._held() > self._pixels:
                self._looks.popitem(last=False)

    def _held(self) -> int:
        return sum(look.xray.pixels.size for look in self._looks.values())


class Engine:
    """Answers questions about X-rays, one batch after another, in a thread of its own."""

    def __init__(self, predictor: Predictor, limits: Limits, metrics: Metrics) -> None:
        self.predictor = predictor
        self.looks = Looks(limits.kept_images, limits.kept_pixels)
        self._metrics = metrics
        self._queue: Queue[Job | None] = Queue(limits.queue)
        self._thread: Thread | None = None

    def start(self) -> None:
        """Starts the thread, after a first run that makes the model allocate what it needs."""
        size = self.predictor.runtime.size
        ramp = np.linspace(0, 1, size * size, dtype=np.float32).reshape(size, size)
        self.predictor.predict(ChestXray.from_array(ramp), force=True)
        self._thread = Thread(target=self._work, name="sgseg-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answers what is waiting, then ends."""
        if self._thread is not None and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    @property
    def ready(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def submit(self, key: str, source: ChestXray | Look, question: Question) -> Future[Prediction]:
        """Queues a question.

        Raises:
            BusyError: the queue is full.
        """
        job = Job(key, source, question)
        try:
            self._queue.put_nowait(job)
        except Full:
            raise BusyError(
                "more images are waiting than the service takes on; try again in a second"
            ) from None
        self._metrics.waiting.set(self._queue.qsize())
        return job.future

    def _work(self) -> None:
        going_on = True
        while going_on:
            waiting = self._waiting()
            going_on = None not in waiting
            jobs = [job for job in waiting if job and job.future.set_running_or_notify_cancel()]
            if jobs:
                self._metrics.batches.observe(len(jobs))
                self._answer(jobs)
            del waiting, jobs  # else the last images stay in memory until the next arrives

    def _waiting(self) -> list[Job | None]:
        """At least one job, and what else is there."""
        jobs = [self._queue.get()]
        try:
            while len(jobs) < LARGEST_BATCH and jobs[-1] is not None:
                jobs.append(self._queue.get_nowait())
        except Empty:
            pass
        self._metrics.waiting.set(self._queue.qsize())
        return jobs

    def _answer(self, jobs: list[Job]) -> None:
        try:
            looks = self._looked_at(jobs)
        except Exception as error:
            _fail(jobs, error)
            return
        for guidance in {job.question.guidance for job in jobs}:
            alike = [job for job in jobs if job.question.guidance is guidance]
            try:
                self._decode(alike, [looks[job.key] for job in alike], guidance)
            except Exception as error:
                _fail(alike, error)

    def _looked_at(self, jobs: Iterable[Job]) -> dict[str, Look]:
        """A look at every job's image; those not seen before are encoded together."""
        looks: dict[str, Look] = {}
        new: dict[str, ChestXray] = {}
        for key, source in ((job.key, job.source) for job in jobs):
            look = source if isinstance(source, Look) else self.looks.get(key)
            if look is not None:
                looks[key] = look
            elif isinstance(source, ChestXray):
                new[key] = source
        if new:
            encoded = self.predictor.encode(list(new.values()))
            self._metrics.encoded.inc(len(new))
            for i, (key, xray) in enumerate(new.items()):
                looks[key] = Look(xray, _row(encoded, i))
                self.looks.put(key, looks[key])
        return looks

    def _decode(self, jobs: list[Job], looks: list[Look], guidance: Guidance) -> None:
        """Answers jobs of one guidance."""
        zones = [job.question.zones for job in jobs if job.question.zones is not None]
        encoded = _stacked([look.encoded for look in looks])
        predictions = self.predictor.decode([look.xray for look in looks], encoded, guidance, zones or None)
        self._metrics.decoded.inc(len(jobs))
        for job, prediction in zip(jobs, predictions, strict=True):
            job.future.set_result(replace(prediction, threshold=job.question.threshold))


def _row(encoded: Encoded, i: int) -> Encoded:
    """One image of a batch; copied, so that it does not keep the others in memory."""

    def own(array: Any) -> Any:
        return None if array is None else array[i : i + 1].copy()

    features, *others = encoded
    return Encoded(tuple(map(own, features)), *map(own, others))


def _stacked(rows: list[Encoded]) -> Encoded:
    """The inverse of `_row`."""

    def joined(arrays: Sequence[Any]) -> Any:
        return None if arrays[0] is None else np.concatenate(arrays)

    features, *others = zip(*rows, strict=True)
    return Encoded(tuple(map(joined, zip(*features, strict=True))), *map(joined, others))


def _fail(jobs: list[Job], error: Exception) -> None:
    for job in jobs:
        job.future.set_exception(error)
