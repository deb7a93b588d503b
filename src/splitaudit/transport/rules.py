"""Which requests a training takes as it stands: each function raises the Refusal that says why not."""

import grpc

from splitaudit.transport.course import Course
from splitaudit.transport.protocol import Request
from splitaudit.transport.refusal import Refusal, malformed


def check_going(course: Course) -> None:
    """The training has not failed."""
    if course.failure is not None:
        raise Refusal(grpc.StatusCode.DATA_LOSS, f"the training has failed: {course.failure}")


def check_current(course: Course, request: Request, *, taking: bool = False) -> None:
    """The request is about this training since it last went back to a checkpoint, and about one of its turns.

    The last turn's successor can be taken too: what is given for it is the result.
    """
    check_going(course)
    if request.generation != course.generation:
        raise Refusal(grpc.StatusCode.ABORTED, "the server went back to its last checkpoint: say hello again")
    if request.turn >= course.turns.end + taking:
        raise malformed(f"there is no turn {request.turn}: the last one is {course.turns.end - 1}")


def check_turn(course: Course, request: Request, *, step: bool) -> None:
    """It is this client's turn now, and for a split step, or for giving layers."""
    check_current(course, request)
    turn = course.turns[request.turn]
    if turn.client != request.client:
        raise Refusal(grpc.StatusCode.PERMISSION_DENIED, f"turn {turn.number} is client {turn.client}'s")
    if (turn.step is not None) != step:
        raise malformed(f"turn {turn.number} is {'not ' if step else ''}a split step")
    if request.turn < course.turn:
        raise passed(course, request)
    if request.turn > course.turn:
        raise Refusal(
            grpc.StatusCode.FAILED_PRECONDITION, f"turn {request.turn} has not come: it is turn {course.turn}"
        )


def check_pending(course: Course, request: Request) -> None:
    """There is a forward pass for the backward pass of this turn."""
    check_turn(course, request, step=True)
    if not course.pending:
        raise Refusal(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"turn {request.turn} has no forward pass: it never came, or was forgotten as its time was over",
        )


def check_over(course: Course) -> None:
    """All turns are done."""
    if not course.over:
        raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, f"the training is at turn {course.turn}, not over")


def passed(course: Course, request: Request) -> Refusal:
    """What is said about a turn that is over."""
    return Refusal(grpc.StatusCode.OUT_OF_RANGE, f"turn {request.turn} is over: it is turn {course.turn}")
