"""What is particular to the store in etcd: members that die, writers that die half-way, who may do what, what is refused how."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
import pytest

from routemesh.errors import RoutemeshError, Unavailable
from routemesh.loops import FIRST_PAUSE_S
from routemesh.model import Role, Secret, SecretId, Service, ServiceId, ServiceSpec, State
from routemesh.options import EtcdCluster, Keys
from routemesh.pki.certificates import issue, make_root, new_key, request
from routemesh.pki.subject import Subject
from routemesh.store import format as form
from routemesh.store.codec import CodecError
from routemesh.store.etcd import journal as journals
from routemesh.store.etcd import keys
from routemesh.store.etcd import store as stores
from routemesh.store.etcd.client import Client
from routemesh.store.etcd.faults import Missed
from routemesh.store.etcd.messages import Json
from routemesh.store.etcd.store import EtcdStore
from routemesh.store.format import FORMAT
from routemesh.values import replace
from tests.store import etcd
from tests.store.daemon import COUNTER, count, increment
from tests.support import patience, require, unique, wait_until

DEADLINE_S = 20.0
MANY = 250
"""Objects: more than one transaction holds."""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server() -> Iterator[etcd.Etcd]:
    """One member for all tests that leave it as they find it."""
    require("etcd")
    with etcd.running() as cluster:
        yield cluster


@pytest.fixture
def place(server: etcd.Etcd) -> EtcdCluster:
    """A prefix of one's own."""
    return server.place(f"/{unique('store')}")


@asynccontextmanager
async def opened(place: EtcdCluster) -> Any:
    """A store, closed afterwards."""
    store = await EtcdStore.open(place)
    try:
        yield store
    finally:
        await store.close()


def run(body: Awaitable[None]) -> None:
    """Within the deadline."""

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S * patience()):
            await body

    asyncio.run(bounded())


async def persistently(work: Callable[[], Awaitable[State]]) -> State:
    """What comes of it in the end, tried again as a daemon's loops do."""
    while True:
        with suppress(Unavailable):
            return await work()
        await asyncio.sleep(FIRST_PAUSE_S)


def refusal(place: EtcdCluster) -> str:
    """Why the store can't be opened."""

    async def open_it() -> str:
        with pytest.raises(RoutemeshError) as refused:
            async with opened(place):
                pass
        return str(refused.value)

    return asyncio.run(open_it())


def many(state: State) -> State:
    """A change that one transaction can't hold: new objects, one that is replaced, and one that is gone."""
    services = {ServiceId(f"s{number}"): service(f"s{number}") for number in range(MANY)}
    return replace(increment(state), services={**services, COUNTER: increment(state).services[COUNTER]})


def service(name: str) -> Service:
    return Service(id=ServiceId(name), spec=ServiceSpec(name=name), version=1, created_at=1.0, updated_at=1.0)


class Died(Exception):
    """The writer is no more."""


class Deaths(Client):
    """A client whose process dies in place of a certain request; `before`: called ahead of each."""

    def __init__(self, place: EtcdCluster) -> None:
        super().__init__(place)
        self.left: int | None = None
        self.before: Callable[[], Awaitable[None]] | None = None

    async def call(self, path: str, body: Json, answer: type[Any]) -> Any:
        if self.before is not None:
            await self.before()
        if self.left == 0:
            raise Died
        self.left = None if self.left is None else self.left - 1
        return await super().call(path, body, answer)


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routemesh.store.etcd.store.Client", Deaths)


def client_of(store: EtcdStore) -> Deaths:
    client = store._client
    assert isinstance(client, Deaths)
    return client


@pytest.mark.usefixtures("deaths")
def test_wherever_its_writer_dies_a_large_change_has_happened_whole_or_not_at_all(server: etcd.Etcd) -> None:
    async def die_at(moment: int) -> bool:
        place = server.place(f"/{unique('store')}")
        async with opened(place) as reader:
            before = await reader.update(lambda state: replace(state, services={ServiceId("old"): service("old")}))
            async with opened(place) as writer:
                client_of(writer).left = moment
                try:
                    await writer.update(many)
                    is_over = True
                except Died:
                    is_over = False
            seen = await reader.snapshot()
            assert seen == before or len(seen.services) == MANY + 1
            async with opened(place) as late:
                assert await late.snapshot() == seen
                after = await late.update(increment)
                assert count(after) == count(seen) + 1 and after.revision == seen.revision + 1
            async with opened(place) as last:
                assert await last.snapshot() == after == await reader.snapshot()
            return is_over

    async def everywhere() -> None:
        moment = 0
        while not await die_at(moment):
            moment += 1
        assert moment > 5, "there are parts, a flip, portions of objects and an end"

    run(everywhere())


@pytest.mark.usefixtures("deaths")
def test_nobody_ever_sees_half_of_a_large_change(place: EtcdCluster) -> None:
    async def look_all_the_time() -> None:
        async with opened(place) as writer, opened(place) as reader:
            before = await writer.update(lambda state: replace(state, services={ServiceId("old"): service("old")}))
            seen: list[int] = []

            async def look() -> None:
                follows = await reader.snapshot()
                async with opened(place) as fresh:
                    assert await fresh.snapshot() == follows
                assert follows == before or len(follows.services) == MANY + 1
                seen.append(follows.revision)

            client_of(writer).before = look
            after = await writer.update(many)
            assert seen == sorted(seen) and set(seen) == {1, 2}
            assert after == await reader.snapshot()

    run(look_all_the_time())


def test_what_was_staged_in_vain_is_removed(server: etcd.Etcd, place: EtcdCluster) -> None:
    async def lose_the_race() -> None:
        async with opened(place) as slow, opened(place) as quick:
            stage = slow._journal._stage

            async def overtaken(*args: Any) -> bool:
                slow._journal._stage = stage
                assert await stage(*args)
                await quick.update(increment)
                return True

            slow._journal._stage = overtaken
            state = await slow.update(many)
            assert state.revision == 2 and count(state) == 2, "made anew on what the other has written"
            assert await quick.snapshot() == state

    run(lose_the_race())
    staged = server.ctl("get", "--prefix", "--keys-only", f"{place.prefix}/staged/").split()
    assert staged and all("/0000000000000002/" in key for key in staged)
    assert not server.ctl("get", "--keys-only", f"{place.prefix}/pending")


class LostAnswers(Client):
    """A client that does not hear the first answer to each transaction."""

    lost = False

    async def _ask(self, endpoint: str, path: str, body: Json, answer: type[Any]) -> Any:
        found = await super()._ask(endpoint, path, body, answer)
        self.lost = path == "kv/txn" and not self.lost
        if self.lost:
            raise Missed("lost")
        return found


def test_what_was_done_though_the_answer_was_lost_is_done_once(place: EtcdCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routemesh.store.etcd.store.Client", LostAnswers)

    async def deaf() -> None:
        async with opened(place) as store:
            for number in range(1, 4):
                state = await store.update(increment)
                assert count(state) == number == state.revision
            state = await store.update(many)
            assert count(state) == 4 == state.revision
            assert await store.renew("leader", "me", 5.0) and await store.renew("leader", "me", 5.0, value=1)
            assert not await store.renew("leader", "you", 5.0)
            async with opened(place) as other:
                assert await other.snapshot() == state

    run(deaf())


def test_a_lease_is_prolonged_for_longer_than_it_lasts(place: EtcdCluster) -> None:
    async def prolong() -> None:
        async with opened(place) as store, opened(place) as other:
            assert await store.renew("leader", "me", 1.0)
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                assert await store.renew("leader", "me", 1.0)
                assert not await other.renew("leader", "you", 1.0)

    run(prolong())


def test_a_daemon_that_starts_anew_has_its_lease_at_once(place: EtcdCluster) -> None:
    async def restart() -> None:
        async with opened(place) as store:
            assert await store.renew("node/a", "me", 60.0, value=3)
        async with opened(place) as again:
            assert await again.renew("node/a", "me", 60.0, value=3)
            await again.release("node/a", "me")
            assert await again.leases() == {}

    run(restart())


def test_who_is_far_behind_reads_everything_and_the_log_stays_short(
    server: etcd.Etcd, place: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "KEPT_REVISIONS", 3)

    async def fall_behind() -> None:
        async with opened(place) as mine, opened(place) as other:
            await mine.update(increment)
            for _ in range(10):
                await other.update(increment)
            assert count(await mine.snapshot()) == 11

    run(fall_behind())
    assert len(server.ctl("get", "--prefix", "--keys-only", f"{place.prefix}/log/").split()) == 4


def test_the_log_keeps_nothing_of_a_removed_secret(server: etcd.Etcd, place: EtcdCluster) -> None:
    secret = Secret(id=SecretId("s"), name="cert", created_at=0.0, data=b"-----BEGIN PRIVATE KEY-----")

    async def come_and_go() -> None:
        async with opened(place) as store, opened(place) as other:
            await store.update(lambda state: replace(state, secrets={secret.id: secret}))
            assert (await other.snapshot()).secrets
            await store.update(increment)
            await store.update(lambda state: replace(state, secrets={}))
            assert (await other.snapshot()).secrets == {} and count(await other.snapshot()) == 1

    run(come_and_go())
    assert "cert" not in server.ctl("get", "--prefix", place.prefix)


def test_a_watch_goes_on_over_a_restart_and_a_compaction(place: EtcdCluster) -> None:
    with etcd.running() as cluster:
        (member,) = cluster.members

        async def outlive() -> None:
            async with opened(cluster.place()) as store:
                wakeups = store.watch()
                await anext(wakeups)
                await store.update(increment)
                await anext(wakeups)
                pending = asyncio.ensure_future(anext(wakeups))
                member.end()  # all this while this daemon does nothing
                member.start(cluster.members)
                assert cluster.leader is member
                for number in range(3):
                    cluster.ctl("put", "/routemesh/lease/x", f'{{"holder":"h","ttl_s":1.0,"value":{number}}}')
                newest = member.ask("maintenance/status")["header"]["revision"]
                cluster.ctl("compact", newest)
                await asyncio.wait_for(pending, 10 * patience())
                assert (await store.leases())["x"].value == 2
                pending = asyncio.ensure_future(anext(wakeups))
                await asyncio.wait({pending}, timeout=0.2)
                if pending.done():  # the compaction and the write that it hides are told apart
                    pending = asyncio.ensure_future(anext(wakeups))
                await store.update(increment)
                await asyncio.wait_for(pending, 10 * patience())

        run(outlive())


def test_a_cluster_whose_leader_is_killed_goes_on_in_seconds_and_loses_nothing() -> None:
    require("etcd")
    with etcd.running(3) as cluster:

        async def lose_the_leader() -> None:
            async with opened(cluster.place()) as mine, opened(cluster.place()) as other:
                assert await mine.renew("leader", "me", 5.0)
                counted = count(await mine.update(increment))
                leader = cluster.leader
                for happens in (leader.end, lambda: leader.start(cluster.members)):
                    happens()
                    began = time.monotonic()
                    for _ in range(20):
                        for store in (mine, other):
                            counted += 1
                            assert count(await store.update(increment)) == counted
                    assert time.monotonic() - began < 5.0 * patience()
                    assert await mine.renew("leader", "me", 5.0)
                assert await mine.snapshot() == await other.snapshot()

        run(lose_the_leader())

        for member in cluster.members:
            wait_until(lambda: member.ask("maintenance/status"), DEADLINE_S)  # noqa: B023

        async def lose_the_quorum() -> None:
            async with opened(cluster.place()) as store:
                first, second, third = cluster.members
                first.end()
                second.end()
                with pytest.raises(Unavailable, match=r"has no leader .*more than half of its members must run") as refused:
                    await store.update(increment)
                assert f"{first.endpoint}: Connection refused" in str(refused.value) and "\n" not in str(refused.value)
                third.end()
                with pytest.raises(Unavailable, match=r"can't be used .*: is it running, and can it be reached from here"):
                    await store.snapshot()
                for member in cluster.members:
                    member.start(cluster.members)
                assert count(await persistently(lambda: store.update(increment))) > 80

        run(lose_the_quorum())


def test_members_of_two_clusters_are_not_one_store(server: etcd.Etcd) -> None:
    with etcd.running() as other:
        both = EtcdCluster((server.members[0].endpoint, other.members[0].endpoint), "/both")

        async def turn() -> None:
            async with opened(both) as store:
                server.members[0].signal(signal.SIGSTOP)
                try:
                    with pytest.raises(Unavailable, match="is of another etcd cluster than the others"):
                        await store.update(increment)
                finally:
                    server.members[0].signal(signal.SIGCONT)

        run(turn())


def test_a_full_etcd_takes_no_change_and_says_what_to_do() -> None:
    require("etcd")
    with etcd.running(flags=("--quota-backend-bytes=1000000",)) as cluster:

        def larger(state: State) -> State:
            return increment(state, text=os.urandom(50_000).hex())

        async def fill() -> None:
            async with opened(cluster.place()) as store:
                assert await store.renew("node/a", "me", 60.0)
                state = await store.update(increment)
                with pytest.raises(Unavailable, match=r"is full \(alarm NOSPACE\) and takes no changes") as refused:
                    for _ in range(100):
                        state = await store.update(larger)
                assert "look whether" not in str(refused.value).lower()
                assert await store.snapshot() == state and await store.renew("node/a", "me", 60.0)
                cluster.ctl("compact", cluster.members[0].ask("maintenance/status")["header"]["revision"])
                cluster.ctl("defrag")
                cluster.ctl("alarm", "disarm")
                assert count(await store.update(increment)) == count(state) + 1

        run(fill())


# Who may do what.


def test_a_user_with_a_password_and_a_right_to_the_prefix_is_let_in(tmp_path: Path) -> None:
    require("etcd")
    with etcd.running() as cluster:
        (member,) = cluster.members
        wrong, right = tmp_path / "wrong", tmp_path / "right"
        wrong.write_text("no\n")
        right.write_text("secret\n")
        keys_of = {path: Keys(user="mesh", password=path) for path in (wrong, right)}
        assert "knows no users: leave out --store-user" in refusal(cluster.place(keys=keys_of[right]))
        for words in (
            ("user", "add", "root:root"),
            ("user", "grant-role", "root", "root"),
            ("user", "add", "mesh:secret"),
            ("role", "add", "mesh"),
            ("role", "grant-permission", "mesh", "--prefix=true", "readwrite", "/routemesh/"),
            ("user", "grant-role", "mesh", "mesh"),
            ("auth", "enable"),
        ):
            cluster.ctl(*words)
        assert "lets only users in that it knows: give --store-user and --store-password-file" in refusal(cluster.place())
        assert f"does not let user mesh in: correct --store-user or the line in {wrong}" in refusal(
            cluster.place(keys=keys_of[wrong])
        )
        assert "can't read the password for etcd in /none: No such file" in refusal(
            cluster.place(keys=Keys(user="mesh", password=Path("/none")))
        )
        assert "lets user mesh not read and write /other/" in refusal(cluster.place("/other", keys_of[right]))

        async def outlive_the_token() -> None:
            async with opened(cluster.place(keys=keys_of[right])) as store, opened(cluster.place(keys=keys_of[right])) as other:
                await store.update(increment)
                assert await store.renew("leader", "me", 60.0)
                wakeups = other.watch()
                member.end()  # which forgets its tokens
                member.start(cluster.members)
                assert count(await store.update(increment)) == 2
                assert await store.renew("leader", "me", 60.0)
                await anext(wakeups)
                while count(await other.snapshot()) < 3:
                    await store.update(increment)
                    await anext(wakeups)
                await store.release("leader", "me")

        run(outlive_the_token())


def test_tls_is_spoken_with_certificates_of_one_authority(tmp_path: Path) -> None:
    require("etcd")
    ours, theirs = make_files(tmp_path, "ours"), make_files(tmp_path, "theirs")
    flags = (f"--cert-file={ours.certificate}", f"--key-file={ours.key}", f"--trusted-ca-file={ours.ca}", "--client-cert-auth")
    with etcd.running(scheme="https", flags=flags) as cluster:

        async def count_once() -> None:
            async with opened(cluster.place(keys=ours)) as store:
                assert count(await store.update(increment)) == 1

        def answers() -> bool:
            try:
                run(count_once())
            except Unavailable as exc:
                assert "Connection refused" in str(exc)
                return False
            return True

        wait_until(answers, DEADLINE_S)
        (member,) = cluster.members
        where = f"etcd at {member.endpoint} can't be used ({member.endpoint}: "
        assert f"its certificate is not good by {theirs.ca}: unable to get local issuer certificate" in refusal(
            cluster.place(keys=Keys(ca=theirs.ca, certificate=ours.certificate, key=ours.key))
        )
        assert "it does not take" in refusal(cluster.place(keys=Keys(ca=ours.ca, certificate=theirs.certificate, key=theirs.key)))
        assert "--store-cert gives one" in refusal(cluster.place(keys=Keys(ca=ours.ca)))
        plain = refusal(cluster.place())
        assert plain.startswith(where) and "if it speaks TLS, give --store-ca" in plain
        assert f"can't read the CA of etcd's certificates in {tmp_path}/none: No such file" in refusal(
            cluster.place(keys=Keys(ca=tmp_path / "none"))
        )
        mixed = Keys(ca=ours.ca, certificate=ours.certificate, key=theirs.key)
        assert f"can't use the certificate for etcd in {ours.certificate} and {theirs.key}" in refusal(cluster.place(keys=mixed))


def make_files(directory: Path, name: str) -> Keys:
    """An authority's files and a certificate of it for a member of etcd and its client."""
    root = make_root(name, time.time())
    key = new_key()
    subject = Subject(node="node1", role=Role.MANAGER, cluster=name)
    certificate = issue(root, request(key), subject, time.time(), addresses=[IPv4Address(etcd.HOST)])
    files = [directory / f"{name}-{what}.pem" for what in ("ca", "certificate", "key")]
    for file, text in zip(files, (root.certificate, certificate, key), strict=True):
        file.write_text(text)
    return Keys(ca=files[0], certificate=files[1], key=files[2])


# What is there already.


def test_what_answers_but_is_not_etcd_is_named_so() -> None:
    async def serve() -> str:
        async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            writer.close()

        async with await asyncio.start_server(hello, etcd.HOST, 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            with pytest.raises(Unavailable) as refused:
                await EtcdStore.open(EtcdCluster((f"{etcd.HOST}:{port}",), "/x"))
            return str(refused.value)

    assert "what it answers is not etcd's" in asyncio.run(serve())


def test_damage_and_a_history_that_is_not_the_present_ones_are_told(server: etcd.Etcd, place: EtcdCluster) -> None:
    async def damage() -> None:
        async with opened(place) as store:
            await store.update(increment)
            head = server.ctl("get", "--print-value-only", f"{place.prefix}/head").strip()
            await store.update(increment)
            server.ctl("put", f"{place.prefix}/head", head)
            with pytest.raises(Unavailable, match="holds revision 1, but not of the history that led to 2 here: if a backup"):
                await store.snapshot()
            server.ctl("del", "--prefix", place.prefix)
            with pytest.raises(Unavailable, match="holds revision 0, but not of the history that led to 2 here"):
                await store.update(increment)
        async with opened(place) as store:
            await store.update(increment)

    run(damage())
    server.ctl("put", f"{place.prefix}/object/service/{COUNTER}", '{"id": 7}')
    assert f"is damaged in service {COUNTER} (Expected `str`, got `int` - at `$.id`): restore a backup" in refusal(place)


def test_objects_of_a_kind_that_is_not_known_yet_are_left_alone(server: etcd.Etcd, place: EtcdCluster) -> None:
    server.ctl("put", f"{place.prefix}/object/volume/v", "{}")

    async def go_on() -> None:
        async with opened(place) as store:
            assert (await store.update(increment)).revision == 1

    run(go_on())
    assert server.ctl("get", "--print-value-only", f"{place.prefix}/object/volume/v") == "{}\n"


def test_an_older_format_is_brought_to_the_present_one_once_and_older_daemons_stop_writing(
    place: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_next(objects: form.Objects) -> form.Objects:
        services = {key: {**value, "version": value["version"] + 100} for key, value in objects["service"].items()}
        return {**objects, "service": services}

    async def meet() -> None:
        async with opened(place) as older:
            await older.update(many)
            with monkeypatch.context() as newer:
                newer.setattr(form, "STEPS", {**form.STEPS, FORMAT: to_next})
                for module in (form, journals, stores):
                    newer.setattr(module, "FORMAT", FORMAT + 1)
                async with opened(place) as first, opened(place) as second:
                    state = await first.snapshot()
                    assert state == await second.snapshot() and state.revision == 2
                    assert count(state) == 101 and state.services[COUNTER].revision == 2
            with pytest.raises(
                Unavailable, match=rf"a newer routemesh's state \(format {FORMAT + 1}; known is {FORMAT}\): upgrade"
            ):
                await older.update(increment)

    run(meet())


def test_an_object_that_is_too_large_is_named(place: EtcdCluster) -> None:
    async def write() -> None:
        async with opened(place) as store:
            with pytest.raises(CodecError, match=f"service {COUNTER} has 1500.* bytes as JSON; etcd takes 1400000"):
                await store.update(lambda state: increment(state, text="x" * 1_500_000))
            assert count(await store.update(lambda state: increment(state, text="x" * 1_300_000))) == 1
            async with opened(place) as other:
                assert await other.snapshot() == await store.snapshot()

    run(write())


def test_edits_come_out_of_their_parts_as_they_went_in() -> None:
    edits = tuple(keys.RawEdit("service", f"s{number}", msgspec.Raw(b'{"a":"%s"}' % (b"x" * 20_000))) for number in range(60))
    pieces = keys.parts(edits)
    assert len(pieces) > 2 and keys.from_parts(pieces) == edits
    assert [each for portion in keys.portions(edits) for each in portion] == list(edits)
    assert all(sum(len(bytes(each.body)) for each in portion) <= keys.MAX_BYTES for portion in keys.portions(edits))
