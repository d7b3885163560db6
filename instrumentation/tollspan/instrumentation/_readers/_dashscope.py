"""Alibaba Cloud's DashScope."""

from tollspan.instrumentation._readers._facts import Fetch, Reader

DASHSCOPE: tuple[Reader, ...] = ()
DASHSCOPE_FETCHES: tuple[Fetch, ...] = ()
