"""OpenTelemetry spans around the stages of a request, where a collector is configured.

FastAPI makes the span of the request; stages add theirs with `span`. Spans wait in a bounded queue
for a thread that sends them: a collector that is slow or gone costs spans, never a request.
Without a collector nothing is made.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk import resources
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import export
from structlog.typing import EventDict

import mmllm
from mmllm.serve import settings as settings_lib

SERVICE = "mmllm"
PATH = "/v1/traces"
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SEND_S = 2.0  # one attempt and its repeats
CLOSE_S = 3.0
QUEUE_SPANS, BATCH_SPANS = 2048, 512
MAX_ATTRIBUTE = 200  # characters


class Tracing:
    """The way of spans out of this process; made by `configure`.

    Args:
      exporter: sends them.

    Attributes:
      provider: makes tracers.
    """

    def __init__(self, exporter: export.SpanExporter) -> None:
        resource = resources.Resource.create(
            {"service.name": SERVICE, "service.version": mmllm.__version__}
        )
        limits = sdk.SpanLimits(max_attribute_length=MAX_ATTRIBUTE, max_events=16)
        self.provider = sdk.TracerProvider(
            resource=resource, span_limits=limits, shutdown_on_exit=False
        )
        self.provider.add_span_processor(
            export.BatchSpanProcessor(
                exporter, max_queue_size=QUEUE_SPANS, max_export_batch_size=BATCH_SPANS
            )
        )
        self.tracer = self.provider.get_tracer("mmllm.serve")

    def close(self) -> None:
        """Sends what waits, for CLOSE_S at most."""
        closing = threading.Thread(target=self.provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)


_active: Tracing | None = None


def configure(
    settings: settings_lib.Settings, exporter: export.SpanExporter | None = None
) -> Tracing | None:
    """Starts tracing if the settings or OpenTelemetry's own variables name a collector.

    Threads do not survive a fork: call it in each process.

    Args:
      settings: otlp_endpoint, the collector's base URL.
      exporter: in place of the one that sends to a collector.
    """
    global _active
    close()
    exporter = exporter or _sender(settings.otlp_endpoint)
    if exporter is not None:
        _active = Tracing(exporter)
    return _active


def close() -> None:
    """Sends what waits and ends tracing; does nothing where there is none."""
    global _active
    if _active is not None:
        _active.close()
        _active = None


def telemetry() -> dict[str, Any]:
    """What `FastAPI(telemetry=...)` is given: spans of requests, and nothing from other sources."""
    made = trace.NoOpTracerProvider() if _active is None else _active.provider
    return {"tracer_provider": made, "metrics": False, "logs": False, "auto_configure": False}


@contextlib.contextmanager
def span(name: str, **attributes: str | bool | int | float) -> Iterator[Any]:
    """Times a stage as a child of the current span.

    Args:
      name: from a short list, such as "decode"; never what a client sent.
      **attributes: of the stage; no payloads.

    Yields:
      The span, or None where there is no tracing.
    """
    if _active is None:
        yield None
        return
    # An exception's message may hold what a client sent: its type is told, no more.
    with _active.tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise


def add_ids(logger: Any, method: str, event: EventDict) -> EventDict:
    """Adds the ids of the current span to a log line, where there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def _sender(endpoint: str | None) -> export.SpanExporter | None:
    if endpoint is None and not any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
        return None
    # Its HTTP client takes longer to import than all the rest here.
    from opentelemetry.exporter.otlp.proto.http import trace_exporter

    if endpoint is not None:
        endpoint = endpoint.rstrip("/").removesuffix(PATH) + PATH
    return trace_exporter.OTLPSpanExporter(endpoint, timeout=SEND_S)  # None: reads the variables
