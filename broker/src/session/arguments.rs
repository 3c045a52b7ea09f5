//! The arguments of queues, exchanges and consumers: what is known is taken, everything else refused by its name.
//!
//! RabbitMQ ignores arguments that it does not know. Here that would be the worst answer: whoever asks for a dead-letter
//! exchange or a priority and gets none loses messages, or their order, without a word.

use amq_protocol::types::{AMQPType, AMQPValue, FieldTable};

use crate::engine::{Overflow, QueueLimits};
use crate::fault::Fault;

/// RabbitMQ's longest time, ten years in milliseconds.
const EXPIRY_MS_MAX: i64 = 315_360_000_000;

/// Limits of a queue from the arguments of `queue.declare`. `queue` is as RabbitMQ names it in refusals.
///
/// # Errors
/// 406 for a value that cannot be, 540 for what this broker does not do.
pub(super) fn of_queue(arguments: &FieldTable, queue: &str) -> Result<QueueLimits, Fault> {
    let mut limits = QueueLimits::default();
    for (name, value) in arguments {
        let name = name.as_str();
        let invalid = |why: String| Fault::precondition_failed(format_args!("invalid arg '{name}' for {queue}: {why}"));
        match name {
            "x-expires" => {
                let expires_ms = expiry(value).map_err(invalid)?;
                if expires_ms == 0 {
                    return Err(invalid("{value_zero,0}".to_owned()));
                }
                limits.expires_ms = Some(expires_ms);
            }
            "x-message-ttl" => limits.message_ttl_ms = Some(expiry(value).map_err(invalid)?),
            "x-max-length" => limits.length_max = Some(count(value).map_err(invalid)?),
            "x-max-length-bytes" => limits.bytes_max = Some(count(value).map_err(invalid)?),
            "x-overflow" => {
                limits.overflow = Some(match text(value).map_err(invalid)? {
                    b"drop-head" => Overflow::DropHead,
                    b"reject-publish" => Overflow::RejectPublish,
                    b"reject-publish-dlx" => return Err(argument(name, "reject-publish-dlx")),
                    _ => return Err(invalid("invalid_overflow".to_owned())),
                });
            }
            "x-queue-type" => match text(value).map_err(invalid)? {
                b"classic" => {}
                other @ (b"quorum" | b"stream") => return Err(argument(name, &String::from_utf8_lossy(other))),
                other => {
                    return Err(invalid(format!("\"unsupported queue type '{}'\"", String::from_utf8_lossy(other))));
                }
            },
            "x-queue-mode" => match text(value).map_err(invalid)? {
                b"default" => {}
                b"lazy" => return Err(argument(name, "lazy")),
                other => {
                    return Err(invalid(format!("\"unsupported queue mode '{}'\"", String::from_utf8_lossy(other))));
                }
            },
            // How RabbitMQ lays out its files.
            "x-queue-version" => match count(value).map_err(invalid)? {
                1 | 2 => {}
                other => return Err(invalid(format!("\"unsupported queue version '{other}'\""))),
            },
            "x-single-active-consumer" => match value {
                AMQPValue::Boolean(false) => {}
                AMQPValue::Boolean(true) => return Err(argument(name, "true")),
                other => return Err(invalid(format!("{{unacceptable_type,{}}}", kind(other)))),
            },
            _ => return Err(unknown(name, "a queue")),
        }
    }
    Ok(limits)
}

/// Looks at the arguments of `exchange.declare`.
///
/// # Errors
/// 540 for any.
pub(super) fn of_exchange(arguments: &FieldTable) -> Result<(), Fault> {
    match arguments.into_iter().next() {
        Some((name, _)) => Err(unknown(name.as_str(), "an exchange")),
        None => Ok(()),
    }
}

/// Looks at the arguments of `basic.consume`.
///
/// # Errors
/// 406 for a value that cannot be, 540 for what this broker does not do.
pub(super) fn of_consumer(arguments: &FieldTable, queue: &str) -> Result<(), Fault> {
    for (name, value) in arguments {
        let name = name.as_str();
        let invalid = |why: String| Fault::precondition_failed(format_args!("invalid arg '{name}' for {queue}: {why}"));
        match name {
            "x-priority" => {
                let priority = integer(value).map_err(invalid)?;
                if priority != 0 {
                    return Err(argument(name, &priority.to_string()));
                }
            }
            // There is no other node to fail over to.
            "x-cancel-on-ha-failover" => {
                if !matches!(value, AMQPValue::Boolean(_)) {
                    return Err(invalid(format!("{{unacceptable_type,{}}}", kind(value))));
                }
            }
            "x-stream-offset" => {
                return Err(Fault::precondition_failed(format_args!(
                    "invalid arg '{name}' for {queue} of queue type rabbit_classic_queue"
                )));
            }
            _ => return Err(unknown(name, "a consumer")),
        }
    }
    Ok(())
}

fn unknown(name: &str, of: &str) -> Fault {
    Fault::not_implemented(format_args!("argument '{name}' of {of}"))
}

fn argument(name: &str, value: &str) -> Fault {
    Fault::not_implemented(format_args!("argument '{name}' with the value '{value}'"))
}

fn expiry(value: &AMQPValue) -> Result<u64, String> {
    match integer(value)? {
        number if number > EXPIRY_MS_MAX => Err(format!("{{value_too_large,{number}}}")),
        number => u64::try_from(number).map_err(|_| format!("{{value_negative,{number}}}")),
    }
}

fn count(value: &AMQPValue) -> Result<u64, String> {
    let number = integer(value)?;
    u64::try_from(number).map_err(|_| format!("{{value_negative,{number}}}"))
}

fn integer(value: &AMQPValue) -> Result<i64, String> {
    Ok(match *value {
        AMQPValue::ShortShortInt(number) => number.into(),
        AMQPValue::ShortShortUInt(number) => number.into(),
        AMQPValue::ShortInt(number) => number.into(),
        AMQPValue::ShortUInt(number) => number.into(),
        AMQPValue::LongInt(number) => number.into(),
        AMQPValue::LongUInt(number) => number.into(),
        AMQPValue::LongLongInt(number) => number,
        _ => return Err(format!("\"expected integer, got {}\"", kind(value))),
    })
}

fn text(value: &AMQPValue) -> Result<&[u8], String> {
    match value {
        AMQPValue::LongString(text) => Ok(text.as_bytes()),
        _ => Err(format!("{{unacceptable_type,{}}}", kind(value))),
    }
}

/// RabbitMQ's name for a type.
fn kind(value: &AMQPValue) -> &'static str {
    match value.get_type() {
        AMQPType::Boolean => "bool",
        AMQPType::ShortShortInt => "byte",
        AMQPType::ShortShortUInt => "unsignedbyte",
        AMQPType::ShortInt => "short",
        AMQPType::ShortUInt => "unsignedshort",
        AMQPType::LongInt => "signedint",
        AMQPType::LongUInt => "unsignedint",
        AMQPType::LongLongInt | AMQPType::LongLongUInt => "long",
        AMQPType::Float => "float",
        AMQPType::Double => "double",
        AMQPType::DecimalValue => "decimal",
        AMQPType::ShortString | AMQPType::LongString => "longstr",
        AMQPType::FieldArray => "array",
        AMQPType::Timestamp => "timestamp",
        AMQPType::FieldTable => "table",
        AMQPType::ByteArray => "binary",
        AMQPType::Void => "void",
    }
}
