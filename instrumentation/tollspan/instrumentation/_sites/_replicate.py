"""replicate: a prediction is started here, and most often polled for by the same method; both are read on the wire."""

from collections.abc import Iterator

from tollspan.instrumentation._sites._site import CallSite


def _both(since: str, module: str, owner: str, method: str) -> Iterator[CallSite]:
    yield CallSite("replicate", since, f"replicate.{module}", f"{owner}.{method}", "sends")
    yield CallSite("replicate", since, f"replicate.{module}", f"{owner}.async_{method}", "async sends")


REPLICATE: tuple[CallSite, ...] = (
    *_both("1.0", "client", "Client", "run"),
    CallSite("replicate", "1.0", "replicate.client", "Client.stream", "sends"),
    CallSite("replicate", "1.0", "replicate.client", "Client.async_stream", "async sends"),
    *_both("1.0", "prediction", "Predictions", "create"),
    *_both("1.0", "model", "ModelsPredictions", "create"),
    *_both("1.0", "deployment", "DeploymentsPredictions", "create"),
)
