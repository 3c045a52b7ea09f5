#!/usr/bin/python3
"""What an AMQP 0-9-1 broker answers to pika, method by method.

    pika_conformance.py --port N --vhost V --ca F --certificate F --key F --broker rabbitmq|embedded

Each function `case_*` is one row. It fails with what came instead. The same is expected of both brokers; where they
differ, the case says so with `either`, and docs/book/src/broker-methods.md tells it to people. Prints a line of JSON for
each case, and exits with 1 if one of them failed. Who runs it may do everything in the virtual host.
"""

import argparse
import json
import ssl
import sys
import time
import traceback

import pika
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker, NackError, UnroutableError

# Everything is on loopback; what needs longer than this does not come.
PATIENCE_S = 30


class Broker:
    """How to reach it, and which one it is."""

    def __init__(self, options):
        self.options = options
        self.open = []

    def connect(self, vhost=None):
        o = self.options
        context = ssl.create_default_context(cafile=o.ca)
        context.load_cert_chain(o.certificate, o.key)
        parameters = pika.ConnectionParameters(
            host="localhost",
            port=o.port,
            virtual_host=vhost or o.vhost,
            credentials=pika.credentials.ExternalCredentials(),
            ssl_options=pika.SSLOptions(context, "localhost"),
            blocked_connection_timeout=PATIENCE_S,
            connection_attempts=1,
        )
        connection = pika.BlockingConnection(parameters)
        self.open.append(connection)
        return connection

    def channel(self):
        return self.connect().channel()

    def either(self, rabbitmq, embedded):
        """What is expected, where the brokers differ."""
        return {"rabbitmq": rabbitmq, "embedded": embedded}[self.options.broker]

    def close_all(self):
        for connection in self.open:
            if connection.is_open:
                connection.close()
        self.open = []


def same(actual, expected, what=""):
    assert actual == expected, f"{what} {actual!r}, not {expected!r}"


def refused(code, words, action, *arguments, **named):
    """The channel or the connection is closed with this code, and the text begins with these words."""
    kind = ConnectionClosedByBroker if code in (320, 501, 502, 503, 504, 505, 530, 540, 541) else ChannelClosedByBroker
    try:
        action(*arguments, **named)
    except kind as error:
        same(error.reply_code, code, error.reply_text)
        assert error.reply_text.startswith(words), f"{error.reply_text!r} does not begin with {words!r}"
        return error.reply_text
    raise AssertionError(f"allowed, and should have been {code}")


def get(channel, queue, auto_ack=True):
    """The next message of a queue, which comes in a moment."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        method, properties, body = channel.basic_get(queue, auto_ack=auto_ack)
        if method is not None:
            return method, properties, body
    raise AssertionError(f"nothing came to `{queue}`")


def until(channel, what, condition):
    """Waits, and lets pika work meanwhile."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE_S} s"
        channel.connection.process_data_events(time_limit=0.02)


def queue(channel, **named):
    """An exclusive queue with a name of the broker's."""
    return channel.queue_declare("", exclusive=True, **named).method.queue


def bodies(channel, name):
    """Everything that is in a queue."""
    found = []
    while True:
        method, _, body = channel.basic_get(name, auto_ack=True)
        if method is None:
            return found
        found.append(body)


# connection and channel


def case_connection_start_and_tune(broker):
    connection = broker.connect()
    properties = connection._impl.server_properties
    capabilities = properties["capabilities"]
    wanted = (
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
        "per_consumer_qos",
    )
    for name in wanted:
        same(capabilities.get(name), True, name)
    parameters = connection._impl.params
    assert 4096 <= parameters.frame_max <= 131072, parameters.frame_max
    assert 1 <= parameters.channel_max <= 65535, parameters.channel_max


def case_connection_open_of_another_virtual_host(broker):
    try:
        broker.connect(vhost="no-such")
    except pika.exceptions.ProbableAccessDeniedError as error:
        assert "(530) 'NOT_ALLOWED - vhost no-such not found'" in str(error), error
    else:
        raise AssertionError("it was opened")


def case_connection_close(broker):
    connection = broker.connect()
    connection.close(200, "thank you")
    assert connection.is_closed


def case_channel_open_and_close_many(broker):
    connection = broker.connect()
    channels = [connection.channel() for _ in range(8)]
    for channel in channels:
        queue(channel)
        channel.close()
    again = connection.channel(channels[0].channel_number)
    queue(again)


def case_channel_flow_of_a_client(broker):
    # pika offers it; RabbitMQ does not let a client stop a channel.
    channel = broker.channel()
    same(channel.flow(True), True)
    refused(540, "NOT_IMPLEMENTED", channel.flow, False)


def case_channel_error_ends_the_channel_alone(broker):
    connection = broker.connect()
    one, two = connection.channel(), connection.channel()
    refused(404, "NOT_FOUND", one.queue_declare, "no-such", passive=True)
    assert connection.is_open
    queue(two)


# exchange


def case_exchange_declare_of_each_type(broker):
    channel = broker.channel()
    for kind in ("direct", "fanout", "topic"):
        name = f"conformance.{kind}"
        channel.exchange_declare(name, kind)
        channel.exchange_declare(name, kind)
        channel.exchange_declare(name, kind, passive=True)
        channel.exchange_delete(name)
        refused(404, f"NOT_FOUND - no exchange '{name}' in vhost", channel.exchange_declare, name, kind, passive=True)
        channel = broker.channel()


def case_exchange_declare_of_headers(broker):
    channel = broker.channel()
    if broker.either(True, False):
        channel.exchange_declare("conformance.headers", "headers")
        channel.exchange_delete("conformance.headers")
    else:
        refused(540, "NOT_IMPLEMENTED", channel.exchange_declare, "conformance.headers", "headers")


def case_exchange_declare_of_an_unknown_type(broker):
    channel = broker.channel()
    refused(503, "COMMAND_INVALID - unknown exchange type 'nonsense'", channel.exchange_declare, "x", "nonsense")


def case_exchange_declare_again_with_other_properties(broker):
    channel = broker.channel()
    channel.exchange_declare("conformance.twice", "direct")
    refused(
        406,
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'conformance.twice'",
        channel.exchange_declare,
        "conformance.twice",
        "fanout",
    )
    channel = broker.channel()
    refused(
        406,
        "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'conformance.twice'",
        channel.exchange_declare,
        "conformance.twice",
        "direct",
        durable=True,
    )
    broker.channel().exchange_delete("conformance.twice")


def case_exchange_declare_of_reserved_names(broker):
    refused(403, "ACCESS_REFUSED", broker.channel().exchange_declare, "amq.mine", "direct")
    refused(403, "ACCESS_REFUSED", broker.channel().exchange_declare, "", "direct")


def case_exchange_predeclared(broker):
    channel = broker.channel()
    for name, kind in (("amq.direct", "direct"), ("amq.fanout", "fanout"), ("amq.topic", "topic")):
        channel.exchange_declare(name, kind, passive=True)
        channel.exchange_declare(name, kind, durable=True)


def case_exchange_delete(broker):
    channel = broker.channel()
    channel.exchange_delete("conformance.no-such")
    channel.exchange_declare("conformance.used", "fanout")
    name = queue(channel)
    channel.queue_bind(name, "conformance.used")
    refused(406, "PRECONDITION_FAILED", channel.exchange_delete, "conformance.used", if_unused=True)
    channel = broker.channel()
    channel.exchange_delete("conformance.used")
    refused(403, "ACCESS_REFUSED", channel.exchange_delete, "amq.direct")
    refused(403, "ACCESS_REFUSED", broker.channel().exchange_delete, "")


def case_exchange_auto_delete(broker):
    channel = broker.channel()
    channel.exchange_declare("conformance.auto", "fanout", auto_delete=True)
    name = queue(channel)
    channel.queue_bind(name, "conformance.auto")
    channel.queue_unbind(name, "conformance.auto")
    refused(404, "NOT_FOUND", channel.exchange_declare, "conformance.auto", passive=True)


def case_exchange_internal(broker):
    channel = broker.channel()
    channel.exchange_declare("conformance.internal", "fanout", internal=True)
    channel.confirm_delivery()
    refused(403, "ACCESS_REFUSED", channel.basic_publish, "conformance.internal", "", b"x")
    broker.channel().exchange_delete("conformance.internal")


def case_exchange_bind_and_unbind(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    channel.exchange_declare("conformance.from", "topic")
    channel.exchange_declare("conformance.to", "fanout")
    name = queue(channel)
    channel.queue_bind(name, "conformance.to")
    channel.exchange_bind("conformance.to", "conformance.from", "a.#")
    channel.basic_publish("conformance.from", "a.b", b"through")
    same(get(channel, name)[2], b"through")
    channel.exchange_unbind("conformance.to", "conformance.from", "a.#")
    channel.basic_publish("conformance.from", "a.b", b"nowhere")
    same(bodies(channel, name), [])
    for exchange in ("conformance.from", "conformance.to"):
        channel.exchange_delete(exchange)
    refused(404, "NOT_FOUND - no exchange 'conformance.from'", channel.exchange_bind, "amq.fanout", "conformance.from")


# queue


def case_queue_declare_with_the_brokers_name(broker):
    channel = broker.channel()
    declared = channel.queue_declare("", exclusive=True).method
    assert declared.queue.startswith("amq.gen-"), declared.queue
    same((declared.message_count, declared.consumer_count), (0, 0))
    other = channel.queue_declare("", exclusive=True).method.queue
    assert other != declared.queue


def case_queue_declare_counts(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    for _ in range(3):
        channel.basic_publish("", name, b"x")
    declared = channel.queue_declare(name, passive=True).method
    same((declared.message_count, declared.consumer_count), (3, 0))
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(name, lambda *_: None)
    declared = channel.queue_declare(name, passive=True).method
    same(declared.consumer_count, 1)


def case_queue_declare_passive_of_none(broker):
    refused(404, "NOT_FOUND - no queue 'no-such' in vhost", broker.channel().queue_declare, "no-such", passive=True)


def case_queue_declare_of_a_reserved_name(broker):
    refused(403, "ACCESS_REFUSED", broker.channel().queue_declare, "amq.mine")


def case_queue_declare_again_with_other_properties(broker):
    channel = broker.channel()
    channel.queue_declare("conformance.twice", durable=True)
    channel.queue_declare("conformance.twice", durable=True)
    for named, words in (
        ({}, "inequivalent arg 'durable' for queue 'conformance.twice'"),
        ({"durable": True, "auto_delete": True}, "inequivalent arg 'auto_delete' for queue 'conformance.twice'"),
        ({"durable": True, "arguments": {"x-message-ttl": 5}}, "inequivalent arg 'x-message-ttl' for queue"),
    ):
        refused(406, f"PRECONDITION_FAILED - {words}", broker.channel().queue_declare, "conformance.twice", **named)
    channel.queue_delete("conformance.twice")


def case_queue_exclusive(broker):
    channel = broker.channel()
    channel.queue_declare("conformance.mine", exclusive=True)
    words = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'conformance.mine'"
    other = broker.connect()
    refused(405, words, other.channel().queue_declare, "conformance.mine", passive=True)
    refused(405, words, other.channel().queue_declare, "conformance.mine", exclusive=True)
    refused(405, words, other.channel().basic_get, "conformance.mine")
    refused(405, words, other.channel().basic_consume, "conformance.mine", lambda *_: None)
    refused(405, words, other.channel().queue_delete, "conformance.mine")
    channel.connection.close()

    # It goes with its connection, at once or a moment later.
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            other.channel().queue_declare("conformance.mine", passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code == 404:
                return
        assert time.monotonic() < end, "the queue stays"


def case_queue_auto_delete(broker):
    channel = broker.channel()
    channel.queue_declare("conformance.auto", auto_delete=True)
    tag = channel.basic_consume("conformance.auto", lambda *_: None)
    channel.basic_cancel(tag)
    refused(404, "NOT_FOUND", channel.queue_declare, "conformance.auto", passive=True)


def case_queue_bind_and_unbind(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    for _ in range(2):
        channel.queue_bind(name, "amq.direct", "key")
    channel.basic_publish("amq.direct", "key", b"once")
    same(bodies(channel, name), [b"once"])
    for _ in range(2):
        channel.queue_unbind(name, "amq.direct", "key")
    channel.basic_publish("amq.direct", "key", b"never")
    same(bodies(channel, name), [])
    refused(404, "NOT_FOUND - no exchange 'no-such'", channel.queue_bind, name, "no-such", "key")
    refused(404, "NOT_FOUND - no queue 'no-such'", broker.channel().queue_bind, "no-such", "amq.direct", "key")
    refused(403, "ACCESS_REFUSED", broker.channel().queue_bind, queue(broker.channel()), "", "key")


def case_queue_purge(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    for _ in range(5):
        channel.basic_publish("", name, b"x")
    channel.basic_get(name)
    same(channel.queue_purge(name).method.message_count, 4, "what is not acknowledged stays")
    refused(404, "NOT_FOUND", channel.queue_purge, "no-such")


def case_queue_delete(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    same(channel.queue_delete("no-such").method.message_count, 0)
    channel.queue_declare("conformance.full")
    channel.basic_publish("", "conformance.full", b"x")
    refused(406, "PRECONDITION_FAILED", channel.queue_delete, "conformance.full", if_empty=True)
    channel = broker.channel()
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume("conformance.full", lambda *_: None)
    refused(406, "PRECONDITION_FAILED", channel.queue_delete, "conformance.full", if_unused=True)
    channel = broker.channel()
    same(channel.queue_delete("conformance.full").method.message_count, 1)


def case_queue_arguments_that_cannot_be_right(broker):
    for arguments in ({"x-message-ttl": "soon"}, {"x-expires": 0}, {"x-max-length": -1}, {"x-overflow": "explode"}):
        refused(
            406,
            f"PRECONDITION_FAILED - invalid arg '{list(arguments)[0]}' for queue 'conformance.odd'",
            broker.channel().queue_declare,
            "conformance.odd",
            arguments=arguments,
        )


def case_queue_arguments_of_other_engines(broker):
    for arguments in (
        {"x-queue-type": "quorum"},
        {"x-queue-type": "stream"},
        {"x-max-priority": 5},
        {"x-single-active-consumer": True},
    ):
        channel = broker.channel()
        named = {"durable": True, "arguments": arguments}
        if broker.either(True, False):
            channel.queue_declare("conformance.other", **named)
            channel.queue_delete("conformance.other")
        else:
            refused(540, "NOT_IMPLEMENTED", channel.queue_declare, "conformance.other", **named)


# publishing


def case_basic_publish_by_topic(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    for pattern, matching, other in (
        ("a.*.c", ["a.b.c"], ["a.c", "a.b.b.c", "a.b.c.d"]),
        ("a.#", ["a", "a.b", "a.b.c"], ["b", "ab"]),
        ("#.c", ["c", "a.c", "a.b.c"], ["c.a"]),
        ("#", ["", "a", "a.b"], []),
        # An empty key has no words, not one that is empty.
        ("*", ["a"], ["", "a.b"]),
        ("a.#.b.*", ["a.b.c", "a.x.y.b.c"], ["a.b", "a.b.c.d"]),
    ):
        name = queue(channel)
        channel.queue_bind(name, "amq.topic", pattern)
        for key in matching + other:
            channel.basic_publish("amq.topic", key, key.encode())
        same(bodies(channel, name), [key.encode() for key in matching], pattern)


def case_basic_publish_reaches_a_queue_once(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    for pattern in ("a.#", "#", "*.b"):
        channel.queue_bind(name, "amq.topic", pattern)
    channel.basic_publish("amq.topic", "a.b", b"one")
    same(bodies(channel, name), [b"one"])


def case_basic_publish_to_all(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    names = [queue(channel) for _ in range(3)]
    for name in names:
        channel.queue_bind(name, "amq.fanout", "ignored")
    channel.basic_publish("amq.fanout", "any", b"all")
    for name in names:
        same(bodies(channel, name), [b"all"])


def case_basic_publish_to_no_exchange(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    refused(404, "NOT_FOUND - no exchange 'no-such' in vhost", channel.basic_publish, "no-such", "key", b"x")


def case_basic_publish_mandatory(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    try:
        channel.basic_publish("amq.topic", "nobody.binds.this", b"back", mandatory=True)
    except UnroutableError as error:
        returned = error.messages[0]
        same((returned.method.reply_code, returned.method.reply_text), (312, "NO_ROUTE"))
        same((returned.method.exchange, returned.method.routing_key), ("amq.topic", "nobody.binds.this"))
        same(returned.body, b"back")
    else:
        raise AssertionError("a message to nobody did not come back")
    # What is not mandatory is confirmed and gone.
    channel.basic_publish("amq.topic", "nobody.binds.this", b"gone")


def case_basic_publish_immediate(broker):
    # pika has no word for it any more.
    channel = broker.channel()
    impl = channel._impl
    impl._send_method(
        pika.spec.Basic.Publish(exchange="", routing_key="x", immediate=True), (pika.BasicProperties(), b"x")
    )
    refused(540, "NOT_IMPLEMENTED", channel.queue_declare, "", exclusive=True)


def case_confirm_select(broker):
    connection = broker.connect()
    channel = connection.channel()
    channel.confirm_delivery()
    name = queue(channel)
    for number in range(200):
        channel.basic_publish("", name, b"%d" % number)
    same(channel.queue_declare(name, passive=True).method.message_count, 200)
    same(bodies(channel, name), [b"%d" % number for number in range(200)])


def case_properties_and_headers_come_as_they_were(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    headers = {
        "text": "ü",
        "number": 5,
        "large": 2**40,
        "negative": -7,
        "truth": True,
        "list": [1, "two", {"three": 3}],
        "table": {"deep": {"deeper": "x" * 300}},
        "none": None,
    }
    properties = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers=headers,
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="m",
        timestamp=1_700_000_000,
        type="t",
        app_id="a",
    )
    channel.basic_publish("", name, b"body", properties)
    method, found, body = get(channel, name)
    same(body, b"body")
    same((method.exchange, method.routing_key, method.redelivered), ("", name, False))
    for field in vars(properties):
        same(getattr(found, field), getattr(properties, field), field)


def case_properties_that_fill_a_frame(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    headers = {"large": "x" * 100_000}
    channel.basic_publish("", name, b"body", pika.BasicProperties(headers=headers))
    same(get(channel, name)[1].headers, headers)


def case_contents_of_each_size(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    frame = channel.connection._impl.params.frame_max
    for size in (0, 1, frame - 9, frame - 8, frame - 7, frame, 3 * frame, 1_000_003):
        body = bytes(index % 251 for index in range(size))
        channel.basic_publish("", name, body)
        assert get(channel, name)[2] == body, f"{size} bytes came back otherwise"


def case_basic_publish_in_somebody_elses_name(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(user_id="somebody")
    words = "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was"
    refused(406, words, channel.basic_publish, "", "x", b"x", properties)


def case_basic_publish_with_an_expiration_that_is_none(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    refused(406, "PRECONDITION_FAILED", channel.basic_publish, "", name, b"x", pika.BasicProperties(expiration="soon"))


# consuming


def case_basic_consume_and_ack(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name, found = queue(channel), []
    tag = channel.basic_consume(name, lambda _, method, properties, body: found.append((method, body)))
    assert tag
    for number in range(10):
        channel.basic_publish("", name, b"%d" % number)
    until(channel, "ten deliveries", lambda: len(found) == 10)
    same([body for _, body in found], [b"%d" % number for number in range(10)])
    same([method.delivery_tag for method, _ in found], list(range(1, 11)))
    same({method.consumer_tag for method, _ in found}, {tag})
    channel.basic_ack(5, multiple=True)
    channel.basic_ack(7)
    channel.close()
    again = channel.connection.channel()
    left = []
    while len(left) < 4:
        method, _, body = get(again, name)
        left.append((body, method.redelivered))
    same(left, [(b"5", True), (b"7", True), (b"8", True), (b"9", True)], "order and mark of what comes again")


def case_basic_qos(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name, found = queue(channel), []
    for number in range(10):
        channel.basic_publish("", name, b"%d" % number)
    channel.basic_qos(prefetch_count=3)
    channel.basic_consume(name, lambda _, method, properties, body: found.append(method.delivery_tag))
    until(channel, "three deliveries", lambda: len(found) == 3)
    # A round trip later there is still nothing more.
    same(channel.queue_declare(name, passive=True).method.message_count, 7)
    same(found, [1, 2, 3])
    channel.basic_ack(2)
    until(channel, "one more", lambda: len(found) == 4)
    same(channel.queue_declare(name, passive=True).method.message_count, 6)
    channel.basic_ack(4, multiple=True)
    until(channel, "three more", lambda: len(found) == 7)


def case_basic_qos_for_a_channel(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    names, found = [queue(channel), queue(channel)], []
    for name in names:
        for _ in range(5):
            channel.basic_publish("", name, b"x")
    channel.basic_qos(prefetch_count=4, global_qos=True)
    for name in names:
        channel.basic_consume(name, lambda _, method, properties, body: found.append(method.delivery_tag))
    until(channel, "four deliveries", lambda: len(found) == 4)
    left = sum(channel.queue_declare(name, passive=True).method.message_count for name in names)
    same(left, 6, "over both consumers")


def case_basic_qos_in_bytes(broker):
    refused(540, "NOT_IMPLEMENTED - prefetch_size!=0", broker.channel().basic_qos, prefetch_size=1000)


def case_basic_consume_without_acknowledgements(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name, found = queue(channel), []
    channel.basic_qos(prefetch_count=1)
    for _ in range(5):
        channel.basic_publish("", name, b"x")
    channel.basic_consume(name, lambda *delivery: found.append(delivery), auto_ack=True)
    until(channel, "five deliveries", lambda: len(found) == 5)


def case_basic_consume_exclusive(broker):
    channel = broker.channel()
    channel.queue_declare("conformance.alone")
    channel.basic_consume("conformance.alone", lambda *_: None, exclusive=True)
    words = "ACCESS_REFUSED - queue 'conformance.alone' in vhost"
    text = refused(403, words, broker.channel().basic_consume, "conformance.alone", lambda *_: None)
    assert text.endswith("in exclusive use"), text
    channel.queue_delete("conformance.alone")


def case_basic_consume_of_no_queue(broker):
    refused(404, "NOT_FOUND - no queue 'no-such'", broker.channel().basic_consume, "no-such", lambda *_: None)


def case_basic_consume_with_a_tag_that_is_taken(broker):
    connection = broker.connect()
    channel = connection.channel()
    name = queue(channel)
    impl = channel._impl
    for _ in range(2):
        impl._send_method(pika.spec.Basic.Consume(queue=name, consumer_tag="same"))
    refused(530, "NOT_ALLOWED - attempt to reuse consumer tag 'same'", channel.queue_declare, name, passive=True)


def case_basic_consume_takes_turns(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name, found = queue(channel), {"a": 0, "b": 0}

    def count(_, method, properties, body):
        found[method.consumer_tag] += 1
        channel.basic_ack(method.delivery_tag)

    for tag in found:
        channel.basic_consume(name, count, consumer_tag=tag)
    for _ in range(20):
        channel.basic_publish("", name, b"x")
    until(channel, "twenty deliveries", lambda: sum(found.values()) == 20)
    same(found, {"a": 10, "b": 10})


def case_basic_cancel(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    tag = channel.basic_consume(name, lambda *_: None)
    channel.basic_publish("", name, b"waits")
    channel.basic_cancel(tag)
    channel.basic_cancel("no-such")
    channel.basic_recover(requeue=True)
    same(get(channel, name)[2], b"waits")


def case_basic_cancel_by_the_broker(broker):
    channel = broker.channel()
    channel.queue_declare("conformance.vanishes")
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = channel.basic_consume("conformance.vanishes", lambda *_: None)
    broker.channel().queue_delete("conformance.vanishes")
    until(channel, "the cancellation", lambda: cancelled == [tag])
    queue(channel)


def case_basic_get(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    same(channel.basic_get(name), (None, None, None))
    for number in range(3):
        channel.basic_publish("", name, b"%d" % number)
    method, _, body = channel.basic_get(name)
    same((body, method.message_count, method.delivery_tag, method.redelivered), (b"0", 2, 1, False))
    channel.basic_ack(method.delivery_tag)
    same(bodies(channel, name), [b"1", b"2"])
    refused(404, "NOT_FOUND", channel.basic_get, "no-such")


def case_basic_nack_and_reject(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    for number in range(6):
        channel.basic_publish("", name, b"%d" % number)
    for _ in range(6):
        channel.basic_get(name)
    channel.basic_nack(2, multiple=True, requeue=True)
    channel.basic_reject(3, requeue=True)
    channel.basic_reject(4, requeue=False)
    channel.basic_nack(5, requeue=False)
    channel.basic_nack(0, multiple=True, requeue=True)
    same(bodies(channel, name), [b"0", b"1", b"2", b"5"], "in their old places")


def case_basic_ack_of_an_unknown_delivery(broker):
    for method in ("basic_ack", "basic_nack", "basic_reject"):
        channel = broker.channel()
        getattr(channel, method)(7)
        words = "PRECONDITION_FAILED - unknown delivery tag 7"
        refused(406, words, channel.queue_declare, "", exclusive=True)


def case_basic_ack_twice(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    channel.basic_publish("", name, b"x")
    channel.basic_get(name)
    channel.basic_ack(1)
    channel.basic_ack(1)
    refused(406, "PRECONDITION_FAILED - unknown delivery tag 1", channel.queue_declare, "", exclusive=True)


def case_basic_recover(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    for number in range(3):
        channel.basic_publish("", name, b"%d" % number)
    for _ in range(3):
        channel.basic_get(name)
    channel.basic_recover(requeue=True)
    same(bodies(channel, name), [b"0", b"1", b"2"])
    refused(540, "NOT_IMPLEMENTED", channel.basic_recover, requeue=False)


def case_what_was_not_acknowledged_comes_again(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    channel.queue_declare("conformance.again")
    for number in range(3):
        channel.basic_publish("", "conformance.again", b"%d" % number)
    other = broker.channel()
    for _ in range(2):
        get(other, "conformance.again", auto_ack=False)
    other.connection.close()
    found = []
    while len(found) < 3:
        method, _, body = get(channel, "conformance.again")
        found.append((body, method.redelivered))
    same(found, [(b"0", True), (b"1", True), (b"2", False)])
    channel.queue_delete("conformance.again")


# limits of queues


def case_expiration_of_a_message(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel)
    channel.basic_publish("", name, b"old", pika.BasicProperties(expiration="1"))
    channel.basic_publish("", name, b"new")
    until(channel, "it expires", lambda: channel.queue_declare(name, passive=True).method.message_count == 1)
    same(bodies(channel, name), [b"new"])


def case_queue_with_a_time_to_live(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel, arguments={"x-message-ttl": 20})
    channel.basic_publish("", name, b"old")
    until(channel, "it expires", lambda: channel.queue_declare(name, passive=True).method.message_count == 0)


def case_queue_that_expires(broker):
    channel = broker.channel()
    channel.queue_declare("conformance.unused", arguments={"x-expires": 100})
    probe = broker.connect()

    def is_gone():
        # Looking at it passively would be a use of it; binding is none.
        try:
            probe.channel().queue_bind("conformance.unused", "amq.fanout")
        except ChannelClosedByBroker as error:
            return error.reply_code == 404
        return False

    until(channel, "the queue expires", is_gone)


def case_queue_with_a_length(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel, arguments={"x-max-length": 2})
    for number in range(5):
        channel.basic_publish("", name, b"%d" % number)
    same(bodies(channel, name), [b"3", b"4"])


def case_queue_with_a_length_in_bytes(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel, arguments={"x-max-length-bytes": 250})
    for number in range(5):
        channel.basic_publish("", name, b"%d" % number * 100)
    same(bodies(channel, name), [b"3" * 100, b"4" * 100])


def case_queue_that_refuses_when_it_is_full(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    name = queue(channel, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    for number in range(2):
        channel.basic_publish("", name, b"%d" % number)
    try:
        channel.basic_publish("", name, b"2")
    except NackError:
        pass
    else:
        raise AssertionError("a full queue took it")
    same(bodies(channel, name), [b"0", b"1"])


def case_queue_with_dead_letters(broker):
    channel = broker.channel()
    channel.confirm_delivery()
    dead = queue(channel)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    if not broker.either(True, False):
        refused(540, "NOT_IMPLEMENTED", queue, channel, arguments=arguments)
        return
    name = queue(channel, arguments=arguments)
    channel.basic_publish("", name, b"dies")
    channel.basic_reject(channel.basic_get(name)[0].delivery_tag, requeue=False)
    same(get(channel, dead)[2], b"dies")


def case_exchange_with_an_alternate(broker):
    channel = broker.channel()
    named = {"arguments": {"alternate-exchange": "amq.fanout"}}
    if broker.either(True, False):
        channel.exchange_declare("conformance.alternate", "direct", **named)
        channel.exchange_delete("conformance.alternate")
    else:
        refused(540, "NOT_IMPLEMENTED", channel.exchange_declare, "conformance.alternate", "direct", **named)


# what goes further


def case_tx_select(broker):
    channel = broker.channel()
    if broker.either(True, False):
        channel.tx_select()
        channel.tx_rollback()
    else:
        refused(540, "NOT_IMPLEMENTED", channel.tx_select)


def case_a_frame_larger_than_agreed(broker):
    connection = broker.connect()
    channel = connection.channel()
    name = queue(channel)
    frame = connection._impl.params.frame_max
    impl = connection._impl
    publish = pika.spec.Basic.Publish(exchange="", routing_key=name)
    header = pika.frame.Header(channel.channel_number, 2 * frame, pika.BasicProperties())
    body = pika.frame.Body(channel.channel_number, b"x" * 2 * frame)
    for part in (pika.frame.Method(channel.channel_number, publish), header, body):
        impl._output_marshaled_frames([part.marshal()])
    refused(501, "FRAME_ERROR", channel.queue_declare, name, passive=True)


def case_a_frame_for_a_channel_that_is_not_open(broker):
    connection = broker.connect()
    channel = connection.channel()
    connection._impl._output_marshaled_frames([pika.frame.Method(99, pika.spec.Queue.Declare(queue="x")).marshal()])
    refused(504, "CHANNEL_ERROR", until, channel, "the end", lambda: False)


def case_a_channel_that_is_open_already(broker):
    connection = broker.connect()
    channel = connection.channel()
    frame = pika.frame.Method(channel.channel_number, pika.spec.Channel.Open())
    connection._impl._output_marshaled_frames([frame.marshal()])
    refused(504, "CHANNEL_ERROR", channel.queue_declare, "", exclusive=True)


def case_a_content_where_none_belongs(broker):
    connection = broker.connect()
    channel = connection.channel()
    frame = pika.frame.Body(channel.channel_number, b"x")
    connection._impl._output_marshaled_frames([frame.marshal()])
    refused(505, "UNEXPECTED_FRAME", channel.queue_declare, "", exclusive=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--vhost", required=True)
    for name in ("--ca", "--certificate", "--key"):
        parser.add_argument(name, required=True)
    parser.add_argument("--broker", choices=("rabbitmq", "embedded"), required=True)
    parser.add_argument("case", nargs="*", help="only these, without `case_`")
    options = parser.parse_args()
    failed = 0
    cases = {name[5:]: case for name, case in globals().items() if name.startswith("case_")}
    for name in options.case or cases:
        broker = Broker(options)
        outcome = {"case": name, "ok": True}
        try:
            cases[name](broker)
            broker.close_all()
        except Exception as error:  # whatever it is, it is not what was expected
            where = traceback.extract_tb(error.__traceback__)
            line = next((frame.lineno for frame in where if frame.name.startswith("case_")), None)
            outcome = {"case": name, "ok": False, "line": line, "error": f"{type(error).__name__}: {error}"}
            failed += 1
        print(json.dumps(outcome), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
