"""boto3 and aiobotocore, as clients of `bedrock-runtime`; and what Anthropic's SDK has only for Bedrock and Vertex.

All operations of all AWS services pass through one method of botocore, with their name and parameters.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from tollspan.instrumentation._readers import ANTHROPIC_MESSAGES, Reader
from tollspan.instrumentation._readers._bedrock._converse import BEDROCK_CONVERSE
from tollspan.instrumentation._readers._bedrock._invoke import BEDROCK_INVOKE
from tollspan.instrumentation._sites._site import CallSite, Form, both
from tollspan.instrumentation._urls import parsed_url

_CONVERSE = {"Converse": "/converse", "ConverseStream": "/converse-stream"}
_INVOKE = {
    "InvokeModel": "/invoke",
    "InvokeModelWithResponseStream": "/invoke-with-response-stream",
    "StartAsyncInvoke": "/async-invoke",
}


def _operation(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs.get("operation_name")


def _parameters(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("api_params")


@dataclass(frozen=True, slots=True, eq=False)
class _Parameters:
    """The parameters are the JSON body, but for the model, which goes into the path; see `Form`."""

    ends: Mapping[str, str]

    def url(self, instance: Any) -> Any:
        """See `Form.url`."""
        return parsed_url(instance.meta.endpoint_url or "")

    def body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """See `Form.body`."""
        if _operation(args, kwargs) not in self.ends:
            return None
        parameters = _parameters(args, kwargs)
        return self.read(parameters) if isinstance(parameters, dict) else None

    def path(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """See `Form.path`."""
        model = quote(str(_parameters(args, kwargs).get("modelId")), safe="")
        return f"/model/{model}{self.ends[_operation(args, kwargs)]}"

    def put(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], changed: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See `Form.put`."""
        return (_operation(args, kwargs), self.written(_parameters(args, kwargs), changed)), {}

    def read(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The request that these parameters make."""
        return parameters

    def written(self, parameters: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
        """The parameters that make a changed request; a cheaper model comes as `model`."""
        model = changed.get("model", changed.get("modelId"))
        return {**{key: value for key, value in changed.items() if key != "model"}, "modelId": model}


@dataclass(frozen=True, slots=True, eq=False)
class _Body(_Parameters):
    """One of the parameters is the JSON body, as text or bytes or a file; the model is put beside what is in it."""

    def read(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """See `_Parameters.read`. What is no JSON object is one thing of unknown meaning."""
        if "modelInput" in parameters:
            return parameters
        raw = parameters.get("body")
        with suppress(orjson.JSONDecodeError, TypeError):
            body = orjson.loads(raw if isinstance(raw, str | bytes | bytearray) else _rewound(raw))
            if isinstance(body, dict):
                return {**body, "modelId": parameters.get("modelId")}
        return {"body": raw, "modelId": parameters.get("modelId")}

    def written(self, parameters: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
        """See `_Parameters.written`."""
        body = {key: value for key, value in changed.items() if key != "modelId"}
        return {**parameters, "body": orjson.dumps(body)}


def _rewound(file: Any) -> Any:
    """What a file holds from where it stands, and stands again; None of one that cannot go back."""
    if not callable(getattr(file, "seekable", None)) or not file.seekable():
        return None
    start = file.tell()
    try:
        return file.read()
    finally:
        file.seek(start)


def _rows(reader: Reader, form: Form) -> tuple[CallSite, ...]:
    method = "_make_api_call"
    return (
        CallSite("boto3", "1.28", "botocore.client", f"BaseClient.{method}", "call", reader, form),
        CallSite("aiobotocore", "2.7", "aiobotocore.client", f"AioBaseClient.{method}", "async call", reader, form),
    )


BEDROCK: tuple[CallSite, ...] = (
    *_rows(BEDROCK_CONVERSE, _Parameters(_CONVERSE)),
    *_rows(BEDROCK_INVOKE, _Body(_INVOKE)),
    # They took these methods from the class of the beta when they were imported, perhaps before the row there was.
    *both("anthropic", "0.60", "anthropic.lib.bedrock._beta_messages", "Messages.create", ANTHROPIC_MESSAGES),
    *both("anthropic", "0.60", "anthropic.lib.vertex._beta_messages", "Messages.create", ANTHROPIC_MESSAGES),
)
