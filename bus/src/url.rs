//! Addresses of brokers.

use std::fmt;
use std::str::FromStr;

use muster_protocol::routing::VHOST_DEFAULT;
use serde::{Deserialize, Serialize};

/// Where a broker is: `amqps://HOST[:PORT][/VHOST]`.
///
/// The port is 5671 and the virtual host `muster` unless given. Names of virtual hosts are
/// percent-encoded (RFC 3986 section 2.1). There is no user and no password: the certificate is the login.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BrokerUrl {
    host: String,
    port: u16,
    vhost: String,
}

/// Why a text is not the address of a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a broker address: {why}; write `amqps://HOST:PORT/VHOST`")]
pub struct UrlError {
    text: String,
    why: &'static str,
}

/// The port of AMQP over TLS (IANA: amqps).
const PORT_DEFAULT: u16 = 5671;

impl BrokerUrl {
    /// Puts an address together from its parts.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16, vhost: impl Into<String>) -> Self {
        Self { host: host.into(), port, vhost: vhost.into() }
    }

    /// The host: a DNS name, an IPv4 or an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The virtual host, decoded.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Host and port, as a person would write them.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "amqps://{}/", self.address())?;
        for byte in self.vhost.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                write!(formatter, "{}", char::from(byte))?;
            } else {
                write!(formatter, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for BrokerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        parse(text).map_err(|why| UrlError { text: without_password(text), why })
    }
}

fn parse(text: &str) -> Result<BrokerUrl, &'static str> {
    let rest = match text.split_once("://") {
        Some(("amqps", rest)) => rest,
        Some(("amqp", _)) => return Err("Muster speaks to brokers over TLS only"),
        Some(_) => return Err("the scheme is not `amqps`"),
        None => return Err("the scheme is missing"),
    };
    if rest.contains(['?', '#']) {
        return Err("it takes no query and no fragment");
    }
    let (authority, vhost) = match rest.split_once('/') {
        Some((authority, vhost)) => (authority, vhost),
        None => (rest, ""),
    };
    if authority.contains('@') {
        return Err("it takes no user and no password, the certificate is the login");
    }
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or("the bracket of the IPv6 address does not close")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| "there is no IPv6 address between the brackets")?;
        (host, after.strip_prefix(':').or_else(|| after.is_empty().then_some("")).ok_or("the port is malformed")?)
    } else {
        authority.split_once(':').unwrap_or((authority, ""))
    };
    if host.is_empty() {
        return Err("the host is missing");
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':')) {
        return Err("the host has a character that no host name has");
    }
    let port = match port {
        "" => PORT_DEFAULT,
        digits => digits.parse().ok().filter(|port| *port != 0).ok_or("the port is not a number from 1 to 65535")?,
    };
    let vhost = if vhost.is_empty() { VHOST_DEFAULT.to_owned() } else { decode(vhost)? };
    Ok(BrokerUrl { host: host.to_ascii_lowercase(), port, vhost })
}

fn decode(text: &str) -> Result<String, &'static str> {
    if text.contains('/') {
        return Err("a slash in a virtual host is written `%2F`");
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2).ok_or("a percent sign is not followed by two digits")?;
        let digits = std::str::from_utf8(digits).map_err(|_| "a percent sign is not followed by two digits")?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| "a percent sign is not followed by two digits")?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| "the virtual host is not UTF-8")
}

/// Somebody may have written a password into the address; it must not end in a log.
fn without_password(text: &str) -> String {
    let Some(at) = text.rfind('@') else { return text.to_owned() };
    // Also where the scheme was forgotten, and what stands before is all that could be one.
    let word = |end: &usize| text[..*end].bytes().all(|byte| byte.is_ascii_alphanumeric());
    let scheme = text.find("://").filter(|end| *end < at && word(end)).map_or("", |end| &text[..end + 3]);
    format!("{scheme}...{}", &text[at..])
}

impl TryFrom<String> for BrokerUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl From<BrokerUrl> for String {
    fn from(url: BrokerUrl) -> Self {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(&str, u16, &str), &str>) {
        let actual = text.parse::<BrokerUrl>();
        match (&actual, expected) {
            (Ok(url), Ok(parts)) => {
                assert_eq!((url.host(), url.port(), url.vhost()), parts);
                assert_eq!(url.to_string().parse::<BrokerUrl>().as_ref(), Ok(url), "prints what it parses");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            _ => panic!("{text}: {actual:?}"),
        }
    }

    #[test]
    fn addresses_parse_and_print() {
        check("amqps://broker.example.com", Ok(("broker.example.com", 5671, "muster")));
        check("amqps://Broker.Example.com/", Ok(("broker.example.com", 5671, "muster")));
        check("amqps://127.0.0.1:15671/test-1", Ok(("127.0.0.1", 15671, "test-1")));
        check("amqps://[::1]:5671/%2F", Ok(("::1", 5671, "/")));
        check("amqps://[::1]", Ok(("::1", 5671, "muster")));
        check("amqps://b/%C3%BC", Ok(("b", 5671, "ü")));
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        check("broker:5671", Err("scheme is missing"));
        check("amqp://broker", Err("over TLS only"));
        check("https://broker", Err("not `amqps`"));
        check("amqps://", Err("host is missing"));
        check("amqps://b:0/", Err("port"));
        check("amqps://b:70000/", Err("port"));
        check("amqps://[::1", Err("does not close"));
        check("amqps://[b]:1", Err("IPv6"));
        check("amqps://b ad/", Err("character"));
        check("amqps://b/a/b", Err("%2F"));
        check("amqps://b/%2", Err("two digits"));
        check("amqps://b/%zz", Err("two digits"));
        check("amqps://b/%ff", Err("UTF-8"));
        check("amqps://b/v?heartbeat=1", Err("no query"));
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        let error = "amqps://lea:secret@broker/".parse::<BrokerUrl>().unwrap_err().to_string();
        assert!(error.contains("certificate is the login") && !error.contains("secret"), "{error}");
        for text in [
            "lea:secret@broker",
            "lea:secret@amqps://broker",
            "amqp://lea:sec@ret@broker",
            "lea:sec@ret://b@b",
            "https://lea:secret@b",
        ] {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(!error.contains("sec") && error.contains("@"), "{error}");
        }
    }
}
