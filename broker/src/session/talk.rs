//! What has been said on a connection, and what follows from it.

use std::sync::Arc;

use amq_protocol::protocol::{AMQPClass, channel as channel_class, connection};
use amq_protocol::types::ShortString;
use tracing::{debug, warn};

use super::channel::Channel;
use super::stalled::Stalled;
use super::{Progress, Settings, Shared};
use crate::access::Peer;
use crate::fault::{Fault, Scope};
use crate::ids::{ChannelNumber, ConnectionId};
use crate::noise::Line;
use crate::outlet::{Outlet as _, Output};
use crate::wire::method::MethodId;
use crate::wire::{Frame, Terms, method};

/// The largest frame before anything was agreed on, as RabbitMQ has it; AMQP's least.
pub(super) const FRAME_BYTES_MIN: u32 = 4_096;

/// Longest text of a short string.
const SHORT_STRING_BYTES_MAX: usize = 255;

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The protocol header.
    Beginning,
    /// `start-ok`.
    Starting,
    /// `tune-ok`.
    Tuning,
    /// `open`.
    Opening,
    /// Everything.
    Running,
    /// `close-ok`, until then.
    Closing {
        /// In milliseconds since the epoch.
        until_ms: i64,
    },
    /// Nothing.
    Over,
}

impl Phase {
    /// RabbitMQ's word.
    fn name(self) -> &'static str {
        match self {
            Self::Beginning | Self::Starting => "starting",
            Self::Tuning => "tuning",
            Self::Opening => "opening",
            Self::Running => "running",
            Self::Closing { .. } | Self::Over => "closed",
        }
    }
}

/// Whether the client is kept from publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocked {
    No,
    /// Nothing is read from it. Whether it was told.
    Yes(bool),
}

/// A connection without its reader of frames.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) id: ConnectionId,
    pub(super) peer: Peer,
    pub(super) settings: Arc<Settings>,
    pub(super) phase: Phase,
    /// Frames cannot be told apart any more; bytes are dropped.
    deaf: bool,
    pub(super) began_ms: i64,
    pub(super) heard_ms: i64,
    pub(super) sent_ms: i64,
    pub(super) frame_bytes_max: u32,
    pub(super) channels_max: u16,
    pub(super) heartbeat_s: u16,
    /// The client's `consumer_cancel_notify`.
    pub(super) cancel_notify: bool,
    /// The client's `connection.blocked`.
    pub(super) blocked_notify: bool,
    /// The client's `authentication_failure_close`.
    pub(super) refusal_notify: bool,
    pub(super) blocked: Blocked,
    /// What came when the broker could not take it, and is taken when it can.
    pub(super) stalled: Option<(ChannelNumber, Stalled)>,
    /// By number.
    channels: Vec<Channel>,
    /// Bytes of contents that are not complete.
    pub(super) held_bytes: usize,
    /// Where the peer last published, which it was allowed to.
    pub(super) allowed: Option<(String, String)>,
}

impl Talk {
    pub(super) fn new(id: ConnectionId, peer: Peer, settings: Arc<Settings>, now_ms: i64) -> Self {
        Self {
            id,
            peer,
            settings,
            phase: Phase::Beginning,
            deaf: false,
            began_ms: now_ms,
            heard_ms: now_ms,
            sent_ms: now_ms,
            frame_bytes_max: FRAME_BYTES_MIN,
            channels_max: 0,
            heartbeat_s: 0,
            cancel_notify: false,
            blocked_notify: false,
            refusal_notify: false,
            blocked: Blocked::No,
            stalled: None,
            channels: Vec::new(),
            held_bytes: 0,
            allowed: None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn frame_bytes_max(&self) -> u32 {
        self.frame_bytes_max
    }

    pub(super) fn terms(&self) -> Terms {
        Terms { frame_bytes_max: self.frame_bytes_max, cancel_notify: self.cancel_notify }
    }

    /// Whether frames are still taken.
    pub(super) fn listens(&self) -> bool {
        !self.deaf && self.phase != Phase::Over
    }

    pub(super) fn stop_listening(&mut self) {
        self.deaf = true;
    }

    pub(super) fn progress(&self) -> Progress {
        match (self.phase, self.blocked) {
            (Phase::Over, _) => Progress::Over,
            (Phase::Running, Blocked::Yes(_)) => Progress::Blocked,
            _ => Progress::Reading,
        }
    }

    /// Takes a frame.
    pub(super) fn frame(&mut self, frame: &Frame<'_>, shared: &mut impl Shared, now_ms: i64) {
        let (number, id) = match *frame {
            Frame::ProtocolHeader(header) => return self.protocol_header(header, shared),
            Frame::Heartbeat { channel } => (channel, None),
            Frame::Method { channel, payload } => (channel, method::id(payload).ok()),
            Frame::ContentHeader { channel, .. } | Frame::Body { channel, .. } | Frame::BodyEnd { channel } => {
                (channel, None)
            }
        };
        let taken = if number == 0 {
            self.connection_frame(frame, shared, now_ms)
        } else {
            self.channel_frame(number, frame, shared, now_ms)
        };
        if let Err(fault) = taken {
            self.fail(number, &fault, id.unwrap_or_default(), shared, now_ms);
        }
    }

    pub(super) fn fail(
        &mut self,
        number: ChannelNumber,
        fault: &Fault,
        id: MethodId,
        shared: &mut impl Shared,
        now_ms: i64,
    ) {
        if fault.scope == Scope::Channel && number != 0 && self.is_running() {
            self.end_channel(number, fault, id, shared, now_ms);
        } else {
            self.end(fault, id, shared, now_ms);
        }
    }

    fn connection_frame(&mut self, frame: &Frame<'_>, shared: &mut impl Shared, now_ms: i64) -> Result<(), Fault> {
        let closing = matches!(self.phase, Phase::Closing { .. });
        match *frame {
            Frame::Heartbeat { .. } => Ok(()),
            Frame::Method { payload, .. } => {
                let method = match method::id(payload) {
                    Ok(_) => method::read(payload),
                    Err(_) => Err(frame.unknown()),
                };
                match method {
                    Err(_) if closing => Ok(()),
                    method => self.connection_method(method?, shared, now_ms),
                }
            }
            _ if closing => Ok(()),
            _ => Err(frame.unexpected()),
        }
    }

    fn connection_method(
        &mut self,
        method: method::Method,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        use connection::AMQPMethod as Method;
        let class = match method.class {
            AMQPClass::Connection(class) => class,
            _ if matches!(self.phase, Phase::Closing { .. }) => return Ok(()),
            _ => return Err(self.unexpected_method()),
        };
        match (self.phase, class) {
            (Phase::Starting, Method::StartOk(start_ok)) => self.start_ok(&start_ok, shared),
            (Phase::Tuning, Method::TuneOk(tune_ok)) => self.tune_ok(&tune_ok),
            (Phase::Opening, Method::Open(open)) => self.open(&open, shared),
            (Phase::Running, Method::Close(close)) => {
                debug!(connection = self.id.0, code = close.reply_code, "closed by the client");
                self.leave(shared, now_ms);
                self.say(0, AMQPClass::Connection(Method::CloseOk(connection::CloseOk {})), shared);
                self.phase = Phase::Over;
                Ok(())
            }
            (Phase::Running, Method::UpdateSecret(_)) => {
                Err(Fault::not_implemented("connection.update-secret: there is no secret beside the certificate"))
            }
            (Phase::Closing { .. }, Method::CloseOk(_)) => {
                self.phase = Phase::Over;
                Ok(())
            }
            (Phase::Closing { .. }, Method::Close(_)) => {
                self.say(0, AMQPClass::Connection(Method::CloseOk(connection::CloseOk {})), shared);
                Ok(())
            }
            (Phase::Closing { .. }, _) => Ok(()),
            _ => Err(self.unexpected_method()),
        }
    }

    fn unexpected_method(&self) -> Fault {
        Fault::channel_error(format_args!("unexpected method in connection state {}", self.phase.name()))
    }

    fn channel_frame(
        &mut self,
        number: ChannelNumber,
        frame: &Frame<'_>,
        shared: &mut impl Shared,
        now_ms: i64,
    ) -> Result<(), Fault> {
        match self.phase {
            Phase::Running => {}
            Phase::Closing { .. } => return Ok(()),
            _ => return Err(frame.unexpected()),
        }
        match *frame {
            Frame::Method { payload, .. } => {
                if method::id(payload).is_err() {
                    return Err(frame.unknown());
                }
                self.channel_method(number, method::read(payload)?, shared, now_ms)
            }
            Frame::ContentHeader { payload, .. } => self.content_header(number, frame, payload, shared, now_ms),
            Frame::Body { payload, .. } => self.content_body(number, payload),
            Frame::BodyEnd { .. } => self.content_body_end(number, shared, now_ms),
            Frame::Heartbeat { .. } | Frame::ProtocolHeader(_) => Err(frame.unexpected()),
        }
    }

    /// Sends a method.
    pub(super) fn say(&self, channel: ChannelNumber, method: AMQPClass, shared: &mut impl Shared) {
        let (_, outlet) = shared.lock();
        outlet.send(self.id, Output::Method { channel, method: Box::new(method) });
    }

    /// Where a channel is, or where it would be.
    pub(super) fn find(&self, number: ChannelNumber) -> Result<usize, usize> {
        // Clients use the lowest numbers, and few.
        self.channels.binary_search_by_key(&number, |channel| channel.number)
    }

    /// A channel that is open or closing.
    pub(super) fn channel(&mut self, number: ChannelNumber) -> Option<&mut Channel> {
        let index = self.find(number).ok()?;
        self.channels.get_mut(index)
    }

    pub(super) fn add_channel(&mut self, number: ChannelNumber) {
        if let Err(index) = self.find(number) {
            self.channels.insert(index, Channel::new(number));
        }
    }

    pub(super) fn remove_channel(&mut self, number: ChannelNumber, shared: &mut impl Shared) {
        if let Ok(index) = self.find(number) {
            let channel = self.channels.remove(index);
            self.held_bytes -= channel.held_bytes();
            shared.lock().0.users.close_channels(&self.peer.user, 1);
        }
    }

    /// Whether the log says that this user has met this exception.
    fn say_of(&self, fault: &Fault, shared: &mut impl Shared, now_ms: i64) -> Option<Line> {
        shared.lock().0.noise.say(&self.peer.user, &fault.code.to_string(), now_ms)
    }

    /// Ends a channel with an exception: what it has goes back, `channel.close` is sent, and everything on it is ignored until
    /// that is answered.
    fn end_channel(
        &mut self,
        number: ChannelNumber,
        fault: &Fault,
        (class_id, method_id): MethodId,
        shared: &mut impl Shared,
        now_ms: i64,
    ) {
        if let Some(line) = self.say_of(fault, shared, now_ms) {
            warn!(
                connection = self.id.0,
                user = %self.peer.user,
                channel = number,
                %fault,
                repeated = line.repeated,
                left_out = line.left_out,
                "channel ended"
            );
        }
        let Some(channel) = self.channel(number) else { return };
        let held = channel.held_bytes();
        channel.closing = true;
        channel.discard();
        self.held_bytes -= held;
        let (broker, outlet) = shared.lock();
        broker.engine.close_channel((self.id, number), now_ms, outlet);
        let close = channel_class::Close { reply_code: fault.code, reply_text: reply_text(fault), class_id, method_id };
        self.say(number, AMQPClass::Channel(channel_class::AMQPMethod::Close(close)), shared);
    }

    /// Ends the connection with an exception: it leaves the engine, `connection.close` is sent, and everything is ignored until
    /// that is answered.
    pub(super) fn end(
        &mut self,
        fault: &Fault,
        (class_id, method_id): MethodId,
        shared: &mut impl Shared,
        now_ms: i64,
    ) {
        if matches!(self.phase, Phase::Closing { .. } | Phase::Over) {
            return;
        }
        if let Some(line) = self.say_of(fault, shared, now_ms) {
            warn!(
                connection = self.id.0,
                user = %self.peer.user,
                %fault,
                repeated = line.repeated,
                left_out = line.left_out,
                "connection ended"
            );
        }
        let silent = self.phase == Phase::Starting && fault.code == LOGIN_REFUSED && !self.refusal_notify;
        self.leave(shared, now_ms);
        if silent {
            self.phase = Phase::Over;
            return;
        }
        let close = connection::Close { reply_code: fault.code, reply_text: reply_text(fault), class_id, method_id };
        self.say(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)), shared);
        self.phase = Phase::Closing { until_ms: now_ms.saturating_add(self.settings.close_ms) };
    }

    pub(super) fn close(&mut self, fault: &Fault, shared: &mut impl Shared, now_ms: i64) {
        match self.phase {
            Phase::Running => self.end(fault, (0, 0), shared, now_ms),
            Phase::Closing { .. } => {}
            _ => self.phase = Phase::Over,
        }
    }

    pub(super) fn lost(&mut self, shared: &mut impl Shared, now_ms: i64) {
        self.leave(shared, now_ms);
        self.phase = Phase::Over;
    }

    /// Leaves the engine, if it is there.
    fn leave(&mut self, shared: &mut impl Shared, now_ms: i64) {
        if self.phase != Phase::Running {
            return;
        }
        let (broker, outlet) = shared.lock();
        broker.engine.disconnect(self.id, now_ms, outlet);
        broker.users.close_channels(&self.peer.user, self.channels.len());
        broker.users.disconnect(&self.peer.user);
        self.channels = Vec::new();
        self.held_bytes = 0;
        self.allowed = None;
    }
}

/// The code of a refused login.
const LOGIN_REFUSED: u16 = 403;

/// A refusal's words, cut as RabbitMQ cuts them.
fn reply_text(fault: &Fault) -> ShortString {
    cut(fault.text.as_ref())
}

/// As much of a text as a short string has room for.
pub(super) fn cut(text: &str) -> ShortString {
    if text.len() <= SHORT_STRING_BYTES_MAX {
        return text.into();
    }
    format!("{}...", &text[..text.floor_char_boundary(SHORT_STRING_BYTES_MAX - 3)]).into()
}
