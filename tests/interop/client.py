"""A foreign program on the mesh, made of the official Zenoh client and nothing else.

It reads one JSON object per line, does what `do` says, and answers with one JSON line. `main.rs` decides what to do and
what must come of it; here is only what a stranger can do: look around, ask, publish, declare.
"""

import base64
import json
import os
import sys

import zenoh

ANSWER_S = 10.0
LARGE = 2 * 1024 * 1024
IDENTITY_TYPE = "application/vnd.trust-runtime.identity.v1+json"
OBSERVATION_TYPE = "application/vnd.trust-runtime.observation.v1+json"

session = None
tokens = {}
queryables = {}


def connect(order):
    global session
    config = zenoh.Config()
    for key, value in {
        "mode": order["mode"],
        "connect/endpoints": ["tcp/" + it for it in order["endpoints"]],
        "listen/endpoints": [],
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
    }.items():
        config.insert_json5(key, json.dumps(value))
    session = zenoh.open(config)
    return {"zid": str(session.zid())}


def route(order):
    """Becomes a router of the stock kind, and says where it listens."""
    global session
    config = zenoh.Config()
    for key, value in {
        "mode": "router",
        "listen/endpoints": [order["protocol"] + "/127.0.0.1:0"],
        "scouting/multicast/enabled": False,
        "adminspace/enabled": True,
    }.items():
        config.insert_json5(key, json.dumps(value))
    for key, value in order["tls"].items():
        config.insert_json5("transport/link/tls/" + key, json.dumps(value))
    session = zenoh.open(config)
    [reply] = session.get(f"@/{session.zid()}/router", timeout=ANSWER_S)
    [locator] = json.loads(reply.ok.payload.to_bytes())["locators"]
    return {"at": locator.split("/", 1)[1]}


def disconnect(_order):
    session.close()
    return {}


def payload_of(reply):
    good = reply.ok
    if good is not None:
        return {"key": str(good.key_expr), "ok": good.payload.to_bytes().hex()}
    return {"err": reply.err.payload.to_bytes().decode("utf-8", "replace")}


def ask(key, payload=None):
    replies = session.get(key, payload=payload, timeout=ANSWER_S, consolidation=zenoh.ConsolidationMode.NONE)
    return {"replies": [payload_of(reply) for reply in replies]}


def liveliness(_order):
    replies = session.liveliness().get("truST/*/*/svc/liveliness/*", timeout=ANSWER_S)
    return {"tokens": sorted(str(reply.ok.key_expr) for reply in replies if reply.ok is not None)}


def check_signed(document, payload_type, runtime):
    """A document that every program can take apart: DSSE as JSON, about the runtime that its key names."""
    outer = json.loads(document)
    assert outer["payloadType"] == payload_type, outer["payloadType"]
    [signature] = outer["signatures"]
    assert len(base64.b64decode(signature["sig"], validate=True)) == 64, signature
    assert len(bytes.fromhex(signature["keyid"])) == 32, signature
    inner = json.loads(base64.b64decode(outer["payload"], validate=True))
    assert inner["runtime"] == runtime, inner
    return inner


def identity(order):
    runtime = order["runtime"]
    [reply] = ask(f"truST/{runtime}/_meta/identity")["replies"]
    return {"identity": check_signed(bytes.fromhex(reply["ok"]), IDENTITY_TYPE, runtime)}


def observation(order):
    """The next observation of one runtime, as it comes, and its bytes."""
    runtime = order["runtime"]
    subscriber = session.declare_subscriber(f"truST/{runtime}/diag/observation")
    sample = subscriber.recv()
    subscriber.undeclare()
    document = sample.payload.to_bytes()
    return {"observation": check_signed(document, OBSERVATION_TYPE, runtime), "bytes": document.hex()}


def query(order):
    return ask(order["key"], bytes.fromhex(order["payload"]))


def large_query(order):
    return ask(order["key"], b"\x7b" * LARGE)


def random_signature(order):
    outer = json.loads(bytes.fromhex(order["payload"]))
    outer["signatures"][0]["sig"] = base64.b64encode(os.urandom(64)).decode()
    return ask(order["key"], json.dumps(outer).encode())


def flipped(document):
    """The document with one bit of what was signed turned, and everything around it in order."""
    outer = json.loads(document)
    inner = bytearray(base64.b64decode(outer["payload"]))
    inner[len(inner) // 2] ^= 1
    outer["payload"] = base64.b64encode(bytes(inner)).decode()
    return json.dumps(outer).encode()


def flipped_query(order):
    return ask(order["key"], flipped(bytes.fromhex(order["payload"])))


def put(order):
    session.put(order["key"], bytes.fromhex(order["payload"]))
    return {}


def flipped_put(order):
    session.put(order["key"], flipped(bytes.fromhex(order["payload"])))
    return {}


def large_put(order):
    session.put(order["key"], b"\x7b" * LARGE)
    return {}


def declare_token(order):
    tokens[order["key"]] = session.liveliness().declare_token(order["key"])
    return {}


def drop_token(order):
    tokens.pop(order["key"]).undeclare()
    return {}


def flap_token(order):
    """Declares and takes back somebody's token again and again, faster than anybody speaks."""
    for _ in range(order["times"]):
        session.liveliness().declare_token(order["key"]).undeclare()
    return {}


def impersonate(order):
    """Answers every query that is meant for another, at once and with what was ordered."""
    def answer(query):
        query.reply(query.key_expr, bytes.fromhex(order["payload"]))

    queryables[order["key"]] = session.declare_queryable(order["key"], answer, complete=True)
    return {}


def impersonate_no_more(order):
    queryables.pop(order["key"]).undeclare()
    return {}


ORDERS = [
    connect, declare_token, disconnect, drop_token, flap_token, flipped_put, flipped_query, identity, large_put, large_query,
    impersonate, impersonate_no_more, liveliness, observation, put, query, random_signature, route,
]


def main():
    orders = {order.__name__: order for order in ORDERS}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = orders[order["do"]](order)
        except Exception as error:  # The test shows it.
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
