"""Which of several brokers settles, and what the others say when they are asked to."""

import pytest

from hanse.protocol.errors import RequestError
from hanse.provider.sharing import Sharing
from hanse.store import open_memory
from hanse.store.leases import LeaseTerms, Membership, join_group

TERMS = LeaseTerms()


async def join(database, name: str) -> Membership:
    return await join_group(database, "broker:0xp", name, f"http://{name}.test", TERMS)


async def test_a_follower_that_is_asked_to_settle_names_the_leader_and_where_it_is():
    database = await open_memory()
    first, second = await join(database, "first"), await join(database, "second")
    leading, following = Sharing(first, TERMS), Sharing(second, TERMS)
    leading.check_is_leader()
    with pytest.raises(RequestError) as caught:
        following.check_is_leader()
    assert caught.value.code == "configuration_invalid"
    assert caught.value.message == (
        "first at http://first.test leads the brokers of this provider now, not second, and only "
        "the leader settles: it does by itself, or at once by 'hanse settle' where it runs"
    )
    await database.close()


async def test_a_broker_alone_on_its_database_always_leads():
    Sharing(None, TERMS).check_is_leader()


async def test_while_nobody_leads_a_follower_says_so():
    database = await open_memory()
    first, second = await join(database, "first"), await join(database, "second")
    following = Sharing(second, TERMS)
    await first.leave()
    second.members = tuple(member for member in second.members if member.name != "first")
    with pytest.raises(RequestError, match="no broker leads the brokers of this provider now"):
        following.check_is_leader()
    await database.close()
