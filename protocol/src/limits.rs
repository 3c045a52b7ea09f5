//! Every bound of the protocol in one place, each with its reason.
//!
//! A limit is checked *before* the work it bounds: sizes before parsing, depth before building a
//! tree, counts before a loop. Raising one is compatible for readers and needs every reader first.

/// Largest message body on the bus, in bytes. A command with 10,000 host names of 30 bytes fits
/// twice; an agent with a 16 KiB frame size still reassembles it in 64 frames.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Deepest nesting of JSON arrays and objects in a body. Facts of real hosts stay below 10.
pub const JSON_DEPTH_MAX: usize = 32;

/// Largest `muster-signatures` header, in bytes: a handful of signatures with short chains, and
/// still within one AMQP header frame of 16 KiB.
pub const SIGNATURES_BYTES_MAX: usize = 12 * 1024;

/// Most signatures on one message: the caller and a few second persons.
pub const SIGNATURES_MAX: usize = 8;

/// Most certificates in one signature's chain, leaf included.
pub const CHAIN_MAX: usize = 4;

/// Longest host name. DNS would allow 253 bytes (RFC 1035 section 2.3.4), AMQP allows 255 for a whole
/// routing key (0-9-1, "shortstr"), and a reply's key is `service/NAME.SESSION.HOST`.
pub const HOST_NAME_BYTES_MAX: usize = 150;

/// Longest session name: the rest of a reply's routing key. Room for 128 random bits in hexadecimal.
pub const SESSION_NAME_BYTES_MAX: usize = 32;

/// Longest user, group, service, collective, plugin or action name. One DNS label.
pub const SHORT_NAME_BYTES_MAX: usize = 63;

/// Longest target expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 8 * 1024;

/// Deepest nesting of an expression (parentheses, `not`).
pub const EXPRESSION_DEPTH_MAX: usize = 64;

/// Most nodes of an expression's tree.
pub const EXPRESSION_NODES_MAX: usize = 1024;

/// Most regular expressions and glob patterns in one expression. Each is compiled once, so this
/// times [`PATTERN_COMPILED_BYTES_MAX`] bounds what an expression holds in memory: 512 KiB.
pub const EXPRESSION_PATTERNS_MAX: usize = 32;

/// Largest compiled regular expression, in bytes.
pub const PATTERN_COMPILED_BYTES_MAX: usize = 16 * 1024;

/// Most text that one evaluation gives to its patterns, in bytes, each pattern's text counted anew. A
/// pattern's time grows with its size and the text's; both bounds together keep an evaluation, which comes
/// before any policy and happens on the agent's only thread, below some tenths of a second. What lies
/// beyond is unknown.
pub const PATTERN_TEXT_BYTES_MAX: usize = 64 * 1024;

/// Deepest nesting of groups in a regular expression.
pub const PATTERN_NESTING_MAX: u32 = 32;

/// Most segments of a path in an expression. Facts nest no deeper than a message's JSON.
pub const PATH_SEGMENTS_MAX: usize = 32;

/// Most host names in one target.
pub const TARGET_HOSTS_MAX: usize = 20_000;

/// Longest time between a command's creation and its expiry: agents keep request ids for the
/// whole window, and a queue outlives its host for one day.
pub const COMMAND_WINDOW_MS_MAX: i64 = 24 * 60 * 60 * 1000;

/// How far a command's creation may lie in the agent's future, by default.
pub const CLOCK_SKEW_MS_DEFAULT: i64 = 60 * 1000;

/// Largest output chunk in a running report, in bytes before encoding.
pub const OUTPUT_CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Largest result data in one report, in bytes of JSON. More is cut visibly.
pub const RESULT_BYTES_MAX: usize = 768 * 1024;

/// Longest single message text in a result, in bytes.
pub const MESSAGE_TEXT_BYTES_MAX: usize = 4 * 1024;

/// Most entries in a command's `requires` list.
pub const REQUIRES_MAX: usize = 16;

/// Longest sealed values of one command, in bytes of base64: they stand beside the keys of all hosts in a body.
pub const SEALED_BYTES_MAX: usize = 256 * 1024;

/// Most secret arguments of one command.
pub const SEALED_NAMES_MAX: usize = 32;

/// Most hosts that one command's secret arguments are sealed to: 1,000 keys of some 350 bytes fit into a body.
pub const SEALED_RECIPIENTS_MAX: usize = 1_000;

/// Largest profile in an announcement, in bytes of JSON: 5,000 packages of 100 bytes.
pub const PROFILE_BYTES_MAX: usize = 512 * 1024;

/// Largest plugin description (DDL), in bytes. The longest of real plugins have 30 KB.
pub const DDL_BYTES_MAX: usize = 256 * 1024;

/// Most actions of one plugin.
pub const DDL_ACTIONS_MAX: usize = 128;

/// Most inputs, outputs, aggregates or list values of one action.
pub const DDL_ITEMS_MAX: usize = 256;

/// Longest validation pattern of an input, in bytes. Together with an engine whose time is linear
/// it bounds what one argument can cost.
pub const DDL_PATTERN_BYTES_MAX: usize = 1024;

/// Longest time limit that a plugin description may ask for, in seconds: one day.
pub const DDL_TIMEOUT_S_MAX: u64 = 24 * 60 * 60;
