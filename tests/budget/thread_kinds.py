"""Threads of every kind that applications have, and how each is started with some work."""

import threading

import pytest


class Worker(threading.Thread):
    """A thread class with a run of its own, which never calls the inherited one."""

    def __init__(self, work):
        super().__init__()
        self.work = work

    def run(self):
        self.work()


class Polite(Worker):
    """One that calls the inherited run as well."""

    def run(self):
        super(Worker, self).run()
        super().run()


class Late(threading.Timer):
    """A timer with a run of its own, which never calls the inherited one."""

    def __init__(self, work):
        super().__init__(0, work)

    def run(self):
        self.function()


def replaced(work):
    """A thread whose run was replaced on the object, as error trackers do."""
    thread = threading.Thread(target=lambda: pytest.fail("the replaced run must run"))
    thread.run = work
    return thread


def target(work):
    return threading.Thread(target=work)


def started(make):
    def run(work):
        thread = make(work)
        thread.start()
        thread.join()

    return run
