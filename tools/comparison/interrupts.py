"""Ctrl-C, SIGTERM and SIGHUP end a comparison as KeyboardInterrupt, but never in the middle of what must be whole."""
import contextlib
import signal

_state = {"held": 0, "asked": False, "raised": False}


def _raise():
    """Once: what comes later would only disturb the cleaning up."""
    if not _state["raised"]:
        _state["raised"] = True
        raise KeyboardInterrupt


def _on_signal(number, frame):
    _state["asked"] = True
    if not _state["held"]:
        _raise()


def install():
    _state.update(held=0, asked=False, raised=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)


@contextlib.contextmanager
def held():
    """A signal that comes inside is raised at the end."""
    _state["held"] += 1
    try:
        yield
    finally:
        _state["held"] -= 1
    if _state["asked"] and not _state["held"]:
        _raise()
