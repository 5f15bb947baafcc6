"""Which store a place has."""

from typing import assert_never

from routemesh.options import EtcdCluster, OfManagers, Place, SqliteFile
from routemesh.store import Store


async def open_store(place: Place) -> Store:
    """Open the store of that place, which is made first if need be. Raises Unavailable."""
    match place:
        case SqliteFile(path):
            from routemesh.store.sqlite import SqliteStore

            return await SqliteStore.open(path)
        case EtcdCluster():
            from routemesh.store.etcd.store import EtcdStore

            return await EtcdStore.open(place)
        case OfManagers():
            raise AssertionError("a worker opens none: store.stream has what it asks managers with")
        case _:
            assert_never(place)
