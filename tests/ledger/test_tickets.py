"""Tickets: one answer, for a thread or for a task."""

import asyncio

import pytest

from tollspan.ledger import Ticket


async def test_a_cancellation_that_comes_with_the_answer_is_not_swallowed():
    """A task that is cancelled in the turn in which its answer arrives is cancelled, and the answer is still there."""
    ticket = Ticket(asyncio.get_running_loop())
    task = asyncio.create_task(ticket.wait_async(5))
    await asyncio.sleep(0)
    ticket.answer("grant")
    ticket._wake_task()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ticket.give_up()
    assert ticket.result() == "grant"


async def test_a_task_waits_no_longer_than_it_was_told():
    """A ticket that nobody answers raises TimeoutError."""
    with pytest.raises(TimeoutError):
        await Ticket(asyncio.get_running_loop()).wait_async(0.01)
