"""Tasks that this process has begun, of which some providers do not tell the model again when they are fetched."""

from collections import OrderedDict

_REMEMBERED = 4096
_models: "OrderedDict[str, str]" = OrderedDict()


def begun(task_id: str, model: str) -> None:
    """Note the model of a task whose usage is told when it is fetched."""
    _models[task_id] = model
    while len(_models) > _REMEMBERED:
        _models.popitem(last=False)


def model_of(task_id: str) -> str | None:
    """The model of a task, where this process has begun it."""
    return _models.get(task_id)
