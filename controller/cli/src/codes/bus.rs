//! Codes of the way to the broker. They come with exit code 7, or 8 where the broker refuses the identity.

use muster_protocol::Code;

/// The rows.
pub(super) const CODES: &[Code] = &[
    Code {
        code: "broker-unreachable",
        summary: "no broker answers",
        explanation: "Every address was tried once; the message says what happened at each. Check that the broker runs, that address and port are right, and that no firewall is between. `muster doctor` goes through it step by step. Exit code 7.",
    },
    Code {
        code: "broker-unknown-ca",
        summary: "the broker's certificate does not come from the trusted CA",
        explanation: "Somebody else answers at this address, the broker has an old certificate, or the context's `ca` is another site's. Compare with `muster pki show`. Nothing was sent. Exit code 7.",
    },
    Code {
        code: "broker-wrong-name",
        summary: "the broker's certificate is for another name",
        explanation: "Use a name from the certificate in the context's `broker`, or issue the broker a certificate with this name: `muster pki issue broker/NAME --dns NAME`. Exit code 7.",
    },
    Code {
        code: "broker-certificate-expired",
        summary: "the broker's certificate is not valid at this time",
        explanation: "It has expired or is not valid yet. Issue a new one with `muster pki issue`; if its dates look right, compare the clocks. Exit code 7.",
    },
    Code {
        code: "broker-certificate-revoked",
        summary: "the broker's certificate is revoked",
        explanation: "Issue the broker a new certificate, and find out why the old one was revoked before you trust that machine. Exit code 7.",
    },
    Code {
        code: "broker-bad-certificate",
        summary: "the broker's certificate cannot be accepted",
        explanation: "It is broken, or not made for servers. Issue one with `muster pki issue broker/NAME`. Exit code 7.",
    },
    Code {
        code: "certificate-refused",
        summary: "the broker does not accept our certificate",
        explanation: "It trusts another CA, or its revocation list names our certificate. Compare the CA in rabbitmq.conf with the one that issued the certificate of this context. Exit code 8.",
    },
    Code {
        code: "broker-tls",
        summary: "no TLS session came about",
        explanation: "The port is not the broker's TLS port (5671 by default), or it does not offer TLS 1.3. Exit code 7.",
    },
    Code {
        code: "broker-login-refused",
        summary: "the broker does not know this identity",
        explanation: "The certificate is right, but the broker has no user for it, or may not log it in. If it is new, generate and import the definitions again: `muster broker config --import`. If it worked before, its user was removed, for example because the certificate was revoked. Exit code 8.",
    },
    Code {
        code: "broker-vhost-refused",
        summary: "the broker does not let this identity into the virtual host",
        explanation: "The virtual host does not exist, or the user has no permission in it. It is the last part of the broker's address, `muster` by default. Exit code 8.",
    },
    Code {
        code: "broker-session-refused",
        summary: "the broker refuses the session's parameters",
        explanation: "Something between client and broker disagrees about AMQP itself. The broker's log says more. Exit code 8.",
    },
    Code {
        code: "broker-denied",
        summary: "the broker does not allow the operation",
        explanation: "The permissions of this identity are not the generated ones. Compare them: `muster broker check`. Exit code 8.",
    },
    Code {
        code: "broker-not-found",
        summary: "a queue or an exchange is missing on the broker",
        explanation: "Its definitions were never imported, or somebody deleted a part of them. Import them again: `muster broker config`. Exit code 7.",
    },
    Code {
        code: "broker-conflict",
        summary: "a queue is in use in another way",
        explanation: "Another program with the same identity may be running, or an old queue with other properties is left over. Exit code 7.",
    },
    Code {
        code: "broker-connection-closed",
        summary: "the connection to the broker ended",
        explanation: "The broker stopped, or the network broke. Try again once it is back. Exit code 7.",
    },
    Code {
        code: "broker-timeout",
        summary: "the broker did not answer in time",
        explanation: "It is overloaded, or the network is slow. The broker's log says more. Exit code 7.",
    },
    Code {
        code: "broker-unexpected",
        summary: "the broker answered what the protocol does not foresee",
        explanation: "The broker's log says more. If it is RabbitMQ of a version the chapter on the broker names, this is a bug. Exit code 7.",
    },
    Code {
        code: "broker-settings",
        summary: "the settings for the broker cannot be used",
        explanation: "The message names the setting. Addresses are written amqps://HOST[:PORT][/VHOST]. Exit code 2.",
    },
    Code {
        code: "unroutable",
        summary: "nobody is connected under this name",
        explanation: "No queue takes the message. Check the collective's or the host's name, and that the agent has connected once. Exit code 4.",
    },
    Code {
        code: "publish-refused",
        summary: "the broker did not keep the message",
        explanation: "A queue is full, or the broker lost it. Look at the broker's queues. Exit code 7.",
    },
    Code {
        code: "broker-blocked",
        summary: "the broker takes no messages at present",
        explanation: "It lacks memory or disk, and its log says which alarm is on. The command may have arrived all the same: look at the hosts before you send it again. Exit code 7.",
    },
    Code {
        code: "unconfirmed",
        summary: "the broker did not confirm the message",
        explanation: "It may have arrived. Look at the hosts before you send it again. Exit code 7.",
    },
];
