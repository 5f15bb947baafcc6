"""Of nf_tables (linux/netfilter/nf_tables.h): NFT_MSG_…, NFTA_…."""

from enum import IntEnum

_SUBSYSTEM = 10


class NftMessage(IntEnum):
    """Kinds of messages; the upper byte is netfilter's number of nf_tables."""

    NEW_TABLE = _SUBSYSTEM << 8
    GET_TABLE = _SUBSYSTEM << 8 | 1
    GET_CHAIN = _SUBSYSTEM << 8 | 4
    GET_RULE = _SUBSYSTEM << 8 | 7
    GET_SET = _SUBSYSTEM << 8 | 10
    GET_ELEMENTS = _SUBSYSTEM << 8 | 13
    NEW_GENERATION = _SUBSYSTEM << 8 | 15
    GET_GENERATION = _SUBSYSTEM << 8 | 16
    TRACE = _SUBSYSTEM << 8 | 17
    NEW_OBJECT = _SUBSYSTEM << 8 | 18


class NftaTable(IntEnum):
    """Tables."""

    NAME = 1


class NftaChain(IntEnum):
    """Chains."""

    TABLE = 1
    NAME = 3
    HOOK = 4


class NftaHook(IntEnum):
    """Inside of a chain's HOOK."""

    DEVICE = 3


class NftaRule(IntEnum):
    """Rules."""

    TABLE = 1


class NftaGeneration(IntEnum):
    """The ruleset's generation: its number, and the thread that made it."""

    ID = 1
    THREAD = 2


class NftaSet(IntEnum):
    """Sets and maps."""

    TABLE = 1
    NAME = 2
    FLAGS = 3


class NftaElements(IntEnum):
    """Lists of a set's elements."""

    TABLE = 1
    SET = 2
    LIST = 3


class NftaElement(IntEnum):
    """One of them."""

    KEY = 1
    DATA = 2


class NftaData(IntEnum):
    """Inside of an element's KEY and DATA."""

    VALUE = 1


class NftaVerdict(IntEnum):
    """Verdicts."""

    CODE = 1
    CHAIN = 2


class NftaTrace(IntEnum):
    """What a trace tells of a packet."""

    TABLE = 1
    CHAIN = 2
    HANDLE = 3
    VERDICT = 5
    ID = 6
    NETWORK = 8
    TRANSPORT = 9
    IN = 10
    OUT = 12
    MARK = 14
    POLICY = 16


class NftaObject(IntEnum):
    """Objects that rules refer to."""

    TABLE = 1
    NAME = 2
    TYPE = 3
    DATA = 4


class NftaTimeouts(IntEnum):
    """Inside of a ct timeout object's DATA."""

    LAYER3 = 1
    LAYER4 = 2
    SECONDS = 3
