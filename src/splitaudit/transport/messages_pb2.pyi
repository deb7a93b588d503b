from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Key(_message.Message):
    __slots__ = ("run", "generation", "client", "turn")
    RUN_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    run: str
    generation: int
    client: int
    turn: int
    def __init__(self, run: _Optional[str] = ..., generation: _Optional[int] = ..., client: _Optional[int] = ..., turn: _Optional[int] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "order", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    order: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., order: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("protocol", "session", "settings")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    session: bytes
    settings: str
    def __init__(self, protocol: _Optional[int] = ..., session: _Optional[bytes] = ..., settings: _Optional[str] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("generation", "client", "turn", "server")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    generation: int
    client: int
    turn: int
    server: str
    def __init__(self, generation: _Optional[int] = ..., client: _Optional[int] = ..., turn: _Optional[int] = ..., server: _Optional[str] = ...) -> None: ...

class TakeRequest(_message.Message):
    __slots__ = ("key", "layers")
    KEY_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    key: Key
    layers: bool
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., layers: bool = ...) -> None: ...

class TakeReply(_message.Message):
    __slots__ = ("ready", "turn", "given", "layers")
    READY_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    turn: int
    given: int
    layers: bytes
    def __init__(self, ready: bool = ..., turn: _Optional[int] = ..., given: _Optional[int] = ..., layers: _Optional[bytes] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("key", "tensor", "labels")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    key: Key
    tensor: Tensor
    labels: Tensor
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., tensor: _Optional[_Union[Tensor, _Mapping]] = ..., labels: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class StepReply(_message.Message):
    __slots__ = ("tensor", "loss")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    tensor: Tensor
    loss: Tensor
    def __init__(self, tensor: _Optional[_Union[Tensor, _Mapping]] = ..., loss: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class GiveRequest(_message.Message):
    __slots__ = ("key", "layers")
    KEY_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    key: Key
    layers: bytes
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., layers: _Optional[bytes] = ...) -> None: ...

class GiveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeliverRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: Key
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ...) -> None: ...

class DeliverReply(_message.Message):
    __slots__ = ("layers",)
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    layers: bytes
    def __init__(self, layers: _Optional[bytes] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
