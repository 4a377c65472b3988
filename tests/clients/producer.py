"""A producer in Python: publishes requests with pika, one in ten of them broken.

Usage: producer.py publish URL COUNT   publishes, and prints what it published
       producer.py dead URL QUEUE      prints what stands in a queue, and leaves it there

Each line is a JSON object; `sha256` is that of the body.
"""

import hashlib
import json
import sys

import pika


def request(number, send_id):
    return {
        "emailId": 4126643121,
        "message": {"to": f"ada{number}@example.com", "sendId": send_id},
        "customProperties": {"order": str(number)},
    }


# Each takes a good request and returns the body that goes out instead of it.


def not_json(good):
    return json.dumps(good)[:-2]


def wrong_type(good):
    good["message"]["to"] = [good["message"]["to"]]
    return json.dumps(good)


def no_recipient(good):
    del good["message"]["to"]
    return json.dumps(good)


def role_address(good):
    good["message"]["to"] = "NoReply@example.com"
    return json.dumps(good)


def unknown_field(good):
    good["contactPropertys"] = {"firstname": "Ada"}
    return json.dumps(good)


def no_id(good):
    del good["message"]["sendId"]
    return json.dumps(good)


def two_ids(good):
    good["message"]["sendId"] += "-b"
    return json.dumps(good)


def not_utf8(good):
    good["message"]["from"] = "Zoë <zoe@example.com>"
    return json.dumps(good, ensure_ascii=False).encode("latin-1")


def too_large(good):
    good["customProperties"]["order"] = "x" * 300_000
    return json.dumps(good)


def expired(good):
    good["dispatch"] = {"expiresAt": "2026-01-01T00:00:00Z"}
    return json.dumps(good)


BROKEN = [
    not_json,
    wrong_type,
    no_recipient,
    role_address,
    unknown_field,
    no_id,
    two_ids,
    not_utf8,
    too_large,
    expired,
]


def publish(channel, count):
    channel.confirm_delivery()
    for number in range(count):
        send_id = f"pika-{number:05}"
        good = request(number, send_id)
        broken = BROKEN[number // 10 % len(BROKEN)] if number % 10 == 9 else None
        body = broken(good) if broken else json.dumps(good)
        body = body if isinstance(body, bytes) else body.encode()
        # The id may stand in the body, beside it, or in both; half of the requests have both.
        beside = None if broken is no_id or (number % 2 and not broken) else send_id
        # Raises UnroutableError or NackError when it is not durable in a queue.
        channel.basic_publish(
            exchange="postrider",
            routing_key="send",
            body=body,
            properties=pika.BasicProperties(delivery_mode=2, message_id=beside),
            mandatory=True,
        )
        tell(body, id=send_id, broken=broken and broken.__name__)


def dead(channel, queue):
    while True:
        method, properties, body = channel.basic_get(queue)
        if method is None:
            return  # What was taken and not acknowledged goes back when the connection closes.
        headers = properties.headers
        tell(body, reason=headers["x-postrider-reason"], problem=headers["x-postrider-problem"])


def tell(body, **what):
    print(json.dumps({"sha256": hashlib.sha256(body).hexdigest(), **what}))


def main(command, url, argument):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    if command == "publish":
        publish(channel, int(argument))
    else:
        dead(channel, argument)
    connection.close()


main(*sys.argv[1:])
