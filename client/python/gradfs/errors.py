"""What can go wrong, as exceptions. All are gradfs.Error; those of a push are OSErrors with the errno of the call.

    Error
      FormatError        not a safetensors file
      Mismatch           a module and a model that do not fit each other
      WrongProcess       an object that pushes was used in a child of the process that made it
      SlotInUse          another process pushes through this slot: two workers have one name
      PushError          (run, worker, step, reason)
        Refused          nothing of it counted, and the step is not used up
          InvalidGradient  EINVAL     format, metadata, a name, a shape, a dtype
          NotFinite        EDOM       a value that is not finite, or a norm over the limit
          TooStale         ERANGE     based on too old a version, or its round is closed: read again, go on
          RoundTimedOut    ETIMEDOUT  the round did not fill
          QuotaExceeded    EDQUOT     too many pushes are under way
        PushFailed       it could not be written (no such directory, no space): nothing of it counted
        OutcomeUnknown   it may have counted: push the same run, worker and step again, which counts once

That this run, worker and step has counted before (EEXIST) is no error: the push is done.
"""
import errno


class Error(Exception):
    pass


class FormatError(Error, ValueError):
    pass


class Mismatch(Error, ValueError):
    pass


class WrongProcess(Error, RuntimeError):
    pass


class SlotInUse(Error, RuntimeError):
    pass


class PushError(Error, OSError):
    def __init__(self, error_number, text, path, run=None, worker=None, step=None, reason=None):
        super().__init__(error_number, text, path)
        self.run, self.worker, self.step, self.reason = run, worker, step, reason


class Refused(PushError):
    pass


class InvalidGradient(Refused):
    pass


class NotFinite(Refused):
    pass


class TooStale(Refused):
    pass


class RoundTimedOut(Refused):
    pass


class QuotaExceeded(Refused):
    pass


class PushFailed(PushError):
    pass


class OutcomeUnknown(PushError):
    pass


REFUSALS = {errno.EINVAL: InvalidGradient, errno.EDOM: NotFinite, errno.ERANGE: TooStale,
            errno.ETIMEDOUT: RoundTimedOut, errno.EDQUOT: QuotaExceeded}
