"""Alibaba Cloud's dashscope."""

from tollspan.instrumentation._sites._site import CallSite

DASHSCOPE: tuple[CallSite, ...] = ()
