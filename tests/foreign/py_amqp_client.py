#!/usr/bin/python3
"""Python's `amqp`, the client of Celery and Kombu, against any AMQP 0-9-1 broker.

    py_amqp_client.py --ca F --certificate F --key F --port N --vhost V

Prints a line for each step and ends with 0 if all of them went as they must.
"""

import argparse

import amqp

PATIENCE_S = 30


def connect(options):
    connection = amqp.Connection(
        host=f"localhost:{options.port}",
        virtual_host=options.vhost,
        login_method="EXTERNAL",
        ssl={
            "ca_certs": options.ca,
            "certfile": options.certificate,
            "keyfile": options.key,
            "server_hostname": "localhost",
        },
        confirm_publish=True,
        heartbeat=5,
        connect_timeout=PATIENCE_S,
    )
    connection.connect()
    return connection


def main():
    parser = argparse.ArgumentParser()
    for name in ("--ca", "--certificate", "--key", "--port", "--vhost"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    connection = connect(options)
    print("connected")

    channel = connection.channel()
    channel.exchange_declare("py-amqp", "topic", durable=False, auto_delete=False)
    queue = channel.queue_declare(exclusive=True).queue
    channel.queue_bind(queue, "py-amqp", "a.#")
    channel.basic_qos(0, 10, False)
    found = []

    def take(message):
        found.append((message.body, message.headers))
        channel.basic_ack(message.delivery_tag)

    tag = channel.basic_consume(queue, callback=take)
    for number in range(100):
        message = amqp.Message(str(number), application_headers={"number": number, "deep": {"list": [1, "two"]}})
        channel.basic_publish(message, "py-amqp", "a.b", timeout=PATIENCE_S)
    while len(found) < 100:
        connection.drain_events(timeout=PATIENCE_S)
    assert [int(body) for body, _ in found] == list(range(100)), found
    assert all(headers == {"number": number, "deep": {"list": [1, "two"]}} for number, (_, headers) in enumerate(found))
    channel.basic_cancel(tag)
    channel.exchange_delete("py-amqp")
    print("declared, bound, published, confirmed, consumed and acknowledged")

    returned = []
    channel.events["basic_return"].add(lambda *arguments: returned.append(arguments[:3]))
    channel.basic_publish(amqp.Message("back"), "amq.direct", "nobody", mandatory=True, timeout=PATIENCE_S)
    while not returned:
        connection.drain_events(timeout=PATIENCE_S)
    (why, exchange, key), = returned
    assert (why.reply_code, exchange, key) == (312, "amq.direct", "nobody"), returned
    print("returned")

    for code, action in (
        (404, lambda channel: channel.queue_declare("no-such", passive=True)),
        (403, lambda channel: channel.queue_declare("amq.mine")),
        (406, lambda channel: channel.queue_declare("odd", arguments={"x-expires": 0})),
    ):
        try:
            action(connection.channel())
        except amqp.exceptions.AMQPError as error:
            assert error.reply_code == code, error
        else:
            raise AssertionError(f"allowed, and should have been {code}")
    print("refused")

    channel = connection.channel()
    queue = channel.queue_declare(exclusive=True).queue
    body = "0123456789" * 100_000
    channel.basic_publish(amqp.Message(body), "", queue, timeout=PATIENCE_S)
    assert channel.basic_get(queue, no_ack=True).body == body
    assert channel.basic_get(queue, no_ack=True) is None
    print("a megabyte there and back")

    connection.send_heartbeat()
    connection.close()
    print("closed")


if __name__ == "__main__":
    main()
