"""An application that makes children: `children.py NAME [METHOD]`. The parent calls before, meanwhile and after."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from calling import ROUNDS, act, act_often, instrument

instrument()  # here, because a child that is spawned imports this file and nothing else

CHILDREN = 2
JOBS = 2 * ROUNDS


def forks(end):
    for _ in range(CHILDREN):
        act_often()
        if os.fork() == 0:
            act_often()
            end(0)
    act_often()
    ends = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(CHILDREN)]
    act_often()
    sys.exit(max(ends))


def a_job(_number):
    return act()


def processes(context):
    act_often()
    children = [context.Process(target=act_often) for _ in range(CHILDREN)]
    for child in children:
        child.start()
    act_often()
    for child in children:
        child.join()
    act_often()
    sys.exit(max(child.exitcode for child in children))


def pool_closed(context):
    act_often()
    with context.Pool(CHILDREN) as pool:
        pool.map(a_job, range(JOBS), chunksize=1)
        pool.close()
        pool.join()
    act_often()


def pool_terminated(context):
    act_often()
    with context.Pool(CHILDREN) as pool:
        pool.map(a_job, range(JOBS), chunksize=1)
    act_often()


def executor(context):
    act_often()
    with ProcessPoolExecutor(CHILDREN, mp_context=context) as pool:
        list(pool.map(a_job, range(JOBS)))
    act_often()


FAMILIES = {family.__name__: family for family in (processes, pool_closed, pool_terminated, executor)}

if __name__ == "__main__":
    name, how = sys.argv[1:]
    if name == "forks":
        forks({"_exit": os._exit, "exit": sys.exit}[how])
    else:
        FAMILIES[name](multiprocessing.get_context(how))
