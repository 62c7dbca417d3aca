"""A table, writes to it, and a gate that holds the writer: for the tests of every store."""

import asyncio
import threading

TABLES = ["CREATE TABLE facts (name TEXT PRIMARY KEY, amount TEXT)"]


def put(name, amount="1"):
    return lambda tx: tx.execute("INSERT INTO facts VALUES (?, ?)", (name, amount))


async def count(database):
    row = await database.read(lambda tx: tx.find_one("SELECT COUNT(*) FROM facts"))
    return row[0]


class Gate:
    """Holds the writer inside one write until it is opened, so that others queue up."""

    def __init__(self):
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, tx):
        self.entered.set()
        assert self.opened.wait(10)

    async def hold(self, database):
        task = asyncio.create_task(database.write(self))
        await asyncio.get_running_loop().run_in_executor(None, self.entered.wait, 10)
        return task
