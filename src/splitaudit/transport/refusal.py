"""What a server answers to a request that it does not carry out."""

import grpc


class Refusal(Exception):  # noqa: N818 (an answer, not a failure of this program)
    """Why a request was not carried out. The state of the server is as if it had not come."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def malformed(reason: str) -> Refusal:
    """The request is not one that this server could ever carry out."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, reason)
