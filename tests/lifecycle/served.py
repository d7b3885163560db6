"""A web application, for WSGI and for ASGI servers: each request is one round, whose names are the answer.

A request with a query, which is a process id, sends SIGTERM there as soon as its round is done, so that no time passes
in which a writer could write by itself.
"""

import json
import os
import signal
from contextlib import asynccontextmanager

from calling import KINDS, aact, act, act_often, instrument
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route

instrument()
if os.environ.get("APP_CALLS_AT_IMPORT"):
    act_often()


def _answer(names, query):
    if query:
        os.kill(int(query), signal.SIGTERM)
    return {"names": names if KINDS else [], "process": os.getpid()}


async def _in_a_task(request):
    return JSONResponse(_answer(await aact(), request.url.query))


async def _in_a_thread(request):
    return JSONResponse(_answer(await run_in_threadpool(act), request.url.query))


@asynccontextmanager
async def _lifespan(application):
    """The last calls come when the server has already stopped, right before it ends."""
    yield
    if os.environ.get("APP_CALLS_AT_THE_END"):
        await aact()


asgi = Starlette(routes=[Route("/task", _in_a_task), Route("/thread", _in_a_thread)], lifespan=_lifespan)


def wsgi(environ, start_response):
    body = json.dumps(_answer(act(), environ["QUERY_STRING"])).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
