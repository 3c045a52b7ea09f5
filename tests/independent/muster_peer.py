#!/usr/bin/python3
"""A second implementation of the wire protocol, written from the book's chapter "The protocol".

It shares no code with the rest of the project. It uses a stock AMQP client (pika), a stock X.509 and
Ed25519 library (cryptography) and a stock JSON Schema validator (jsonschema).

    muster_peer.py controller ...   sends a signed command, verifies the reports that come back
    muster_peer.py agent ...        takes one command as a host would, verifies it, answers it
    muster_peer.py publish ...      publishes raw bytes with given properties (to send what is wrong)
    muster_peer.py verify FILE ...  verifies messages at rest (DSSE JSON envelopes)

Each mode prints one JSON object on standard output and exits with 0 if everything was as it must be.
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import json
import os
import secrets
import ssl
import sys
import time

import jsonschema
import pika
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

COMMAND = "application/vnd.muster.command.v1+json"
REPORT = "application/vnd.muster.report.v1+json"
SCHEMAS = {COMMAND: "command.schema.json", REPORT: "progress-report.schema.json"}
HEADER = "muster-signatures"


class Wrong(Exception):
    """Something is not as the specification says."""


def pae(payload_type, body):
    """DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


def now_ms():
    return time.time_ns() // 1_000_000


def uuid7():
    """A version 7 UUID (RFC 9562 section 5.7)."""
    value = (now_ms() << 80) | int.from_bytes(secrets.token_bytes(10), "big")
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def raw_bytes(public_key):
    return public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


class Hpke:
    """HPKE in base mode, single shot (RFC 9180): DHKEM(X25519), HKDF-SHA256, ChaCha20Poly1305."""

    KEM = b"KEM" + bytes([0x00, 0x20])
    SUITE = b"HPKE" + bytes([0x00, 0x20, 0x00, 0x01, 0x00, 0x03])

    @staticmethod
    def extract(suite, salt, label, material):
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")

    @staticmethod
    def expand(suite, key, label, info, length):
        labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
        return hmac.digest(key, labeled + b"\x01", "sha256")[:length]  # one block: nothing here is longer

    @classmethod
    def cipher(cls, exchanged, encapsulated, recipient, info):
        key = cls.extract(cls.KEM, b"", b"eae_prk", exchanged)
        shared = cls.expand(cls.KEM, key, b"shared_secret", encapsulated + recipient, 32)
        context = (
            b"\x00"
            + cls.extract(cls.SUITE, b"", b"psk_id_hash", b"")
            + cls.extract(cls.SUITE, b"", b"info_hash", info)
        )
        secret = cls.extract(cls.SUITE, shared, b"secret", b"")
        cipher = ChaCha20Poly1305(cls.expand(cls.SUITE, secret, b"key", context, 32))
        return cipher, cls.expand(cls.SUITE, secret, b"base_nonce", context, 12)

    @classmethod
    def seal(cls, public, info, aad, plain):
        once = X25519PrivateKey.generate()
        encapsulated = raw_bytes(once.public_key())
        exchanged = once.exchange(X25519PublicKey.from_public_bytes(public))
        cipher, nonce = cls.cipher(exchanged, encapsulated, public, info)
        return {
            "encapsulated": base64.b64encode(encapsulated).decode(),
            "ciphertext": base64.b64encode(cipher.encrypt(nonce, plain, aad)).decode(),
        }

    @classmethod
    def open(cls, private, info, aad, box):
        encapsulated = base64.b64decode(box["encapsulated"], validate=True)
        exchanged = private.exchange(X25519PublicKey.from_public_bytes(encapsulated))
        cipher, nonce = cls.cipher(exchanged, encapsulated, raw_bytes(private.public_key()), info)
        return cipher.decrypt(nonce, base64.b64decode(box["ciphertext"], validate=True), aad)


INFO_VALUES = b"muster/1 sealed arguments: values"
INFO_KEY = b"muster/1 sealed arguments: key"


def sealing_context(command):
    return f"{command['id']}\n{command['caller']}\n{command['plugin']}.{command['action']}".encode()


def seal_arguments(command, values, keys):
    """The `sealed` of a command; `keys` is host name to the text of its sealing key."""
    once = X25519PrivateKey.generate()
    private = once.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    context = sealing_context(command)
    recipients = {}
    for host, text in keys.items():
        public = base64.b64decode(text.removeprefix("x25519:"), validate=True)
        recipients[host] = {
            "key_id": hashlib.sha256(public).hexdigest()[:16],
            "sealed": Hpke.seal(public, INFO_KEY, context + b"\n" + host.encode(), private),
        }
    public = raw_bytes(once.public_key())
    return {
        "names": sorted(values),
        "public_key": base64.b64encode(public).decode(),
        "values": Hpke.seal(public, INFO_VALUES, context, json.dumps(values).encode()),
        "recipients": recipients,
    }


def open_arguments(command, host, private):
    """The values in a command's `sealed`, as the host with that private key reads them."""
    sealed = command["sealed"]
    recipient = sealed["recipients"][host]
    if recipient["key_id"] != hashlib.sha256(raw_bytes(private.public_key())).hexdigest()[:16]:
        raise Wrong("sealed to another key")
    context = sealing_context(command)
    key = Hpke.open(private, INFO_KEY, context + b"\n" + host.encode(), recipient["sealed"])
    values = json.loads(Hpke.open(X25519PrivateKey.from_private_bytes(key), INFO_VALUES, context, sealed["values"]))
    if sorted(values) != sorted(sealed["names"]):
        raise Wrong("other arguments are inside than the names say")
    return values


class Party:
    """A certificate with its key: who we are."""

    def __init__(self, certificate, key):
        self.certificate_file, self.key_file = certificate, key
        with open(certificate, "rb") as file:
            self.certificate = x509.load_pem_x509_certificate(file.read())
        with open(key, "rb") as file:
            self.key = serialization.load_pem_private_key(file.read(), None)
        self.identity = identity_of(self.certificate)

    def sign(self, payload_type, body):
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        return {
            "keyid": hashlib.sha256(der).hexdigest(),
            "sig": base64.b64encode(self.key.sign(pae(payload_type, body))).decode(),
            "chain": [base64.b64encode(der).decode()],
        }


def uris(certificate):
    names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def identity_of(certificate):
    first = uris(certificate)[0]
    kind = first.removeprefix("muster:").split("/")[0]
    if not first.startswith("muster:") or kind not in ("host", "user", "service", "broker"):
        raise Wrong(f"the first SAN URI is not an identity: {first}")
    return first


class Verifier:
    """The CA, its revocation list and the schemas."""

    def __init__(self, ca, crl, schemas):
        with open(ca, "rb") as file:
            self.ca = x509.load_pem_x509_certificate(file.read())
        self.revoked = set()
        if crl:
            with open(crl, "rb") as file:
                revocations = x509.load_pem_x509_crl(file.read())
            self.ca.public_key().verify(revocations.signature, revocations.tbs_certlist_bytes)
            self.revoked = {entry.serial_number for entry in revocations}
        self.schemas = schemas

    def signer(self, payload_type, body, signatures):
        """The identity behind the first signature; all of them have to be right."""
        return self.signers(payload_type, body, signatures)[0]

    def signers(self, payload_type, body, signatures):
        """The identities behind all signatures, the sender's first; no identity and no key signs twice."""
        if not 1 <= len(signatures) <= 8:
            raise Wrong("unsigned, or signed by too many")
        identities, keys = [], []
        for signature in signatures:
            der = base64.b64decode(signature["chain"][0], validate=True)
            if hashlib.sha256(der).hexdigest() != signature["keyid"]:
                raise Wrong("the key id is not the digest of the leaf")
            leaf = x509.load_der_x509_certificate(der)
            self.check_certificate(leaf)
            try:
                leaf.public_key().verify(base64.b64decode(signature["sig"], validate=True), pae(payload_type, body))
            except InvalidSignature as error:
                raise Wrong("the signature does not fit the message") from error
            identities.append(identity_of(leaf))
            keys.append(raw_bytes(leaf.public_key()))
        if len(set(identities)) < len(identities) or len(set(keys)) < len(keys):
            raise Wrong("somebody signed twice")
        return identities

    def check_certificate(self, leaf):
        if leaf.issuer != self.ca.subject:
            raise Wrong("the certificate has another issuer")
        try:
            self.ca.public_key().verify(leaf.signature, leaf.tbs_certificate_bytes)
        except InvalidSignature as error:
            raise Wrong("the certificate is not signed by the CA") from error
        now = datetime.datetime.utcnow()
        if not leaf.not_valid_before <= now <= leaf.not_valid_after:
            raise Wrong("the certificate is not valid now")
        if leaf.serial_number in self.revoked:
            raise Wrong("the certificate is revoked")
        usage = leaf.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
            raise Wrong("the certificate is not for clients")

    def check_schema(self, payload_type, body):
        with open(os.path.join(self.schemas, SCHEMAS[payload_type]), encoding="utf-8") as file:
            jsonschema.Draft202012Validator(json.load(file)).validate(json.loads(body))

    def delivery(self, properties, body, expected_type):
        """Verifies what came over AMQP; returns (signer, message)."""
        if properties.content_type != expected_type:
            raise Wrong(f"the content type is {properties.content_type}")
        header = (properties.headers or {}).get(HEADER)
        signer = self.signer(expected_type, body, json.loads(header) if header else [])
        self.check_schema(expected_type, body)
        return signer, json.loads(body)


def connect(options, party):
    context = ssl.create_default_context(cafile=options.ca)
    context.load_cert_chain(party.certificate_file, party.key_file)
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            host=options.broker_host,
            port=options.broker_port,
            virtual_host=options.vhost,
            credentials=pika.credentials.ExternalCredentials(),
            ssl_options=pika.SSLOptions(context, options.broker_host),
            socket_timeout=10,
            blocked_connection_timeout=10,
        )
    )


def publish(channel, exchange, key, payload_type, body, signatures, **properties):
    channel.basic_publish(
        exchange,
        key,
        body,
        pika.BasicProperties(
            content_type=payload_type,
            headers={HEADER: json.dumps(signatures)} if signatures is not None else None,
            **properties,
        ),
        mandatory=True,
    )


def messages(channel, queue, seconds):
    """Deliveries of a queue until `seconds` have passed without one."""
    for method, properties, body in channel.consume(queue, inactivity_timeout=seconds):
        if method is None:
            return
        channel.basic_ack(method.delivery_tag)
        yield properties, body


def cosigners(options):
    """Further people who sign the same bytes."""
    return [Party(*pair.split(":", 1)) for pair in options.cosign]


def ask(options, party, verifier, channel, action, target, given, values=None, keys=None):
    """Sends one command, with `values` sealed to `keys`, and verifies every report."""
    route = f"{party.identity.removeprefix('muster:')}.{secrets.token_hex(4)}"
    created = now_ms()
    command = {
        "protocol": "muster/1",
        "id": uuid7(),
        "caller": party.identity,
        "created_at_ms": created,
        "expires_at_ms": created + 30_000,
        "collective": "main",
        "target": target,
        "plugin": action.split(".")[0],
        "action": action.split(".")[1],
        "arguments": given,
        "options": {"noop": False, "progress": True},
        "reply_to": route,
    }
    if values:
        command["sealed"] = seal_arguments(command, values, keys)
        command["requires"] = ["sealed"]
    body = json.dumps(command, indent=1).encode()  # spaces on purpose: only the exact bytes count
    verifier.check_schema(COMMAND, body)
    queue = f"reply.{route}"
    channel.queue_declare(queue, exclusive=True, auto_delete=True)
    channel.queue_bind(queue, "reply", f"{route}.#")
    signatures = [signer.sign(COMMAND, body) for signer in [party, *cosigners(options)]]
    publish(channel, "cmd", "collective.main", COMMAND, body, signatures, expiration="30000")
    finished, output = {}, {}
    for properties, answer in messages(channel, queue, options.wait):
        signer, report = verifier.delivery(properties, answer, REPORT)
        if signer != f"muster:host/{report['host']}":
            raise Wrong(f"{signer} answers for {report['host']}")
        if report["request_id"] != command["id"] or report["caller"] != party.identity:
            raise Wrong("a report to another request")
        for chunk in report.get("output", []):
            if chunk["stream"] == "stdout" and chunk.get("encoding", "text") == "text":
                output[report["host"]] = output.get(report["host"], "") + chunk["data"]
        if report["state"] == "finished":
            finished[report["host"]] = report["result"]
        if len(finished) == options.expect:
            break
    channel.cancel()
    if len(finished) != options.expect:
        raise Wrong(f"{len(finished)} hosts answered, not {options.expect}: {sorted(finished)}")
    return {"request_id": command["id"], "finished": finished, "output": output}


def controller(options):
    """Sends one command and verifies every report."""
    party = Party(options.certificate, options.key)
    verifier = Verifier(options.ca, options.crl, options.schemas)
    target, values, keys = json.loads(options.target), json.loads(options.secrets), None
    connection = connect(options, party)
    channel = connection.channel()
    channel.confirm_delivery()
    if values:
        told = ask(options, party, verifier, channel, "host.sealing_key", target, {})["finished"]
        keys = {host: result["data"]["sealing_key"] for host, result in told.items()}
    given = json.loads(options.arguments)
    done = ask(options, party, verifier, channel, options.action, target, given, values, keys)
    connection.close()
    return done


def agent(options):
    """Answers one command as the host of the certificate would."""
    party = Party(options.certificate, options.key)
    verifier = Verifier(options.ca, options.crl, options.schemas)
    host = party.identity.removeprefix("muster:host/")
    connection = connect(options, party)
    channel = connection.channel()
    queue = f"agent.{host}"
    channel.queue_declare(queue, durable=True)
    for key in ("all", "collective.main", f"host.{host}"):
        channel.queue_bind(queue, "cmd", key)
    print(json.dumps({"ready": host}), flush=True)
    private = X25519PrivateKey.generate()
    sealing_key = "x25519:" + base64.b64encode(raw_bytes(private.public_key())).decode()
    answered, opened = [], {}
    for properties, body in messages(channel, queue, options.wait):
        signer, command = verifier.delivery(properties, body, COMMAND)
        if signer != command["caller"] or not signer.startswith(("muster:user/", "muster:service/")):
            raise Wrong(f"{signer} commands as {command['caller']}")
        if not command["reply_to"].startswith(signer.removeprefix("muster:") + "."):
            raise Wrong("the reply route is not the caller's")
        if not command["created_at_ms"] - 60_000 <= now_ms() < command["expires_at_ms"]:
            raise Wrong("outside the time window")
        data = json.loads(options.data)
        if (command["plugin"], command["action"]) == ("host", "sealing_key"):
            data = {"sealing_key": sealing_key}
        if "sealed" in command:
            opened.update(open_arguments(command, host, private))
        report = {
            "protocol": "muster/1",
            "request_id": command["id"],
            "caller": command["caller"],
            "host": host,
            "sequence": 0,
            "created_at_ms": now_ms(),
            "state": "finished",
            "result": {"outcome": "succeeded", "code": "ok", "data": data, "duration_ms": 1},
        }
        answer = json.dumps(report).encode()
        verifier.check_schema(REPORT, answer)
        publish(channel, "reply", f"{command['reply_to']}.{host}", REPORT, answer, [party.sign(REPORT, answer)])
        answered.append(f"{command['plugin']}.{command['action']}")
        if len(answered) == options.expect:
            break
    connection.close()
    if len(answered) != options.expect:
        raise Wrong(f"{len(answered)} commands came, not {options.expect}")
    return {"answered": answered, "opened": opened}


def raw(options):
    """Publishes what the test says, signed by nobody or by the certificate."""
    party = Party(options.certificate, options.key)
    with open(options.body, "rb") as file:
        body = file.read()
    signatures = json.loads(options.signatures) if options.signatures else None
    if options.sign:
        signatures = [party.sign(options.content_type, body)]
    connection = connect(options, party)
    channel = connection.channel()
    channel.confirm_delivery()
    publish(channel, "cmd", options.routing_key, options.content_type, body, signatures)
    connection.close()
    return {"published_bytes": len(body)}


def verify(options):
    """Verifies DSSE envelopes in files."""
    verifier = Verifier(options.ca, options.crl, options.schemas)
    verdicts = {}
    for path in options.files:
        with open(path, encoding="utf-8") as file:
            envelope = json.load(file)
        body = base64.b64decode(envelope["payload"], validate=True)
        signers = verifier.signers(envelope["payloadType"], body, envelope["signatures"])
        verdicts[path] = signers if options.all_signers else signers[0]
        verifier.check_schema(envelope["payloadType"], body)
    return verdicts


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    for mode in ("controller", "agent", "publish", "verify"):
        sub = modes.add_parser(mode)
        sub.add_argument("--ca", required=True)
        sub.add_argument("--crl")
        sub.add_argument("--schemas", required=True)
        if mode == "verify":
            sub.add_argument("--all-signers", action="store_true", help="tell all signers, not the first")
            sub.add_argument("files", nargs="+")
            continue
        sub.add_argument("--certificate", required=True)
        sub.add_argument("--key", required=True)
        sub.add_argument("--broker-host", default="localhost")
        sub.add_argument("--broker-port", type=int, required=True)
        sub.add_argument("--vhost", default="muster")
        sub.add_argument("--expect", type=int, default=1)
        sub.add_argument("--wait", type=float, default=20)
        if mode == "controller":
            sub.add_argument("--cosign", action="append", default=[], help="CERTIFICATE:KEY of a further signer")
            sub.add_argument("--action", default="host.ping")
            sub.add_argument("--arguments", default="{}")
            sub.add_argument("--target", default='{"all":true}')
            sub.add_argument("--secrets", default="{}", help="JSON object of arguments to seal to each host")
        if mode == "agent":
            sub.add_argument("--data", default="{}")
        if mode == "publish":
            sub.add_argument("--body", required=True)
            sub.add_argument("--content-type", default=COMMAND)
            sub.add_argument("--signatures")
            sub.add_argument("--sign", action="store_true")
            sub.add_argument("--routing-key", default="collective.main")
    return parser.parse_args()


def main():
    options = arguments()
    try:
        done = {"controller": controller, "agent": agent, "publish": raw, "verify": verify}[options.mode](options)
    except (Wrong, InvalidSignature, jsonschema.ValidationError) as error:
        print(json.dumps({"wrong": str(error)}))
        return 1
    print(json.dumps(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
