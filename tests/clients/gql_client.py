"""gql: queries and mutations over HTTP, subscriptions over a WebSocket."""

import asyncio
import json
import os

from gql import Client, GraphQLRequest
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportConnectionFailed, TransportQueryError
from gql.transport.websockets import WebsocketsTransport

URL, TOKEN, PIPELINE = (os.environ[f"JOBSTREAM_{name}"] for name in ("URL", "TOKEN", "PIPELINE"))

# What no server admits, and what no job is called.
WRONG_TOKEN, UNKNOWN_ID = "not-the-token-of-anybody", "00000000-0000-4000-8000-000000000000"

QUERY = "query ($id: ID!) { pipeline(id: $id) { name status } jobs(pipelineId: $id) { cursor } }"
CREATE_JOB = "mutation ($input: CreateJobInput!) { createJob(input: $input) { job { id status } } }"
LOGS = """
    subscription ($jobId: ID!, $sequence: Int!) {
      jobLogs(jobId: $jobId, sequence: $sequence) { lines { sequence text } nextSequence complete }
    }
"""
CHANGES = """
    subscription ($jobId: ID!, $after: String) {
      jobStatusChanged(jobId: $jobId, after: $after) { cursor status attempt }
    }
"""


def over_http(token):
    return Client(transport=AIOHTTPTransport(url=URL, headers={"Authorization": f"Bearer {token}"}))


def over_websocket(token):
    transport = WebsocketsTransport(
        url=URL.replace("http", "ws", 1),
        init_payload={"Authorization": f"Bearer {token}"},
        # Or else it takes an answer whose headers are in lower case for one in an older protocol.
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
    )
    return Client(transport=transport)


def was_refused(error):
    closed = getattr(error.__cause__, "rcvd", None)
    return closed is not None and closed.code == 4403


async def follow(operation, variables):
    """Subscribes, and does so again when the connection was lost: with the variables of then."""
    while True:
        try:
            async with over_websocket(TOKEN) as session:
                async for data in session.subscribe(GraphQLRequest(operation, variable_values=variables())):
                    yield data
                return
        except (OSError, TransportConnectionFailed) as error:
            if was_refused(error):
                raise
            await asyncio.sleep(0.1)


class Notes:
    """What was seen of a job, and where to go on after a lost connection."""

    def __init__(self, job, cursor):
        self.job, self.cursor = job, cursor
        self.lines, self.changes = [], []
        self.next_sequence, self.complete = 0, False

    async def follow_log(self):
        async for data in follow(LOGS, lambda: {"jobId": self.job, "sequence": self.next_sequence}):
            logs = data["jobLogs"]
            self.lines += [[line["sequence"], line["text"]] for line in logs["lines"]]
            self.next_sequence, self.complete = logs["nextSequence"], logs["complete"]
            print("following", self.next_sequence, flush=True)

    async def follow_status(self):
        async for data in follow(CHANGES, lambda: {"jobId": self.job, "after": self.cursor}):
            change = data["jobStatusChanged"]
            self.changes.append([change["status"], change["attempt"]])
            self.cursor = change["cursor"]
            if change["status"] not in ("QUEUED", "RUNNING"):
                return


async def execute(client, operation, variables=None):
    async with client as session:
        return await session.execute(GraphQLRequest(operation, variable_values=variables))


async def error_of(answer):
    """The error that an operation ends with."""
    try:
        await answer
    except (TransportConnectionFailed, TransportQueryError) as error:
        return error
    raise AssertionError("it was not refused")


def code_of(error):
    return error.errors[0]["extensions"]["code"]


async def main():
    # It is refused, over HTTP and over the WebSocket.
    question = (QUERY, {"id": PIPELINE})
    assert code_of(await error_of(execute(over_http(WRONG_TOKEN), *question))) == "UNAUTHENTICATED"
    assert was_refused(await error_of(execute(over_websocket(WRONG_TOKEN), *question)))

    # It queries and mutates. What goes wrong has a code.
    found = await execute(over_http(TOKEN), *question)
    assert found["pipeline"]["status"] == "READY"
    order = (CREATE_JOB, {"input": {"pipelineId": PIPELINE}})
    job = (await execute(over_http(TOKEN), *order))["createJob"]["job"]["id"]
    assert code_of(await error_of(execute(over_http(TOKEN), *order))) == "PIPELINE_BUSY"

    # A subscription that is refused has its errors too.
    nowhere = follow(LOGS, lambda: {"jobId": UNKNOWN_ID, "sequence": 0})
    assert code_of(await error_of(anext(nowhere))) == "NOT_FOUND"

    # It subscribes.
    notes = Notes(job, found["jobs"]["cursor"])
    await asyncio.gather(notes.follow_log(), notes.follow_status())
    print(json.dumps({"lines": notes.lines, "changes": notes.changes, "complete": notes.complete}))


asyncio.run(main())
